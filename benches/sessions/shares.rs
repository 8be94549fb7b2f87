//! A simulation of the ring, without servers: how evenly sessions lie, what moves when a server is added, and whom
//! the death of one or two of N meets.

use sentry_edge::sessions::replicated::NodeConfig;
use sentry_edge::sessions::replicated::ring::Ring;

const SESSIONS: usize = 200_000;

pub fn run() {
    println!("\n## The ring ({SESSIONS} sessions, equal weights)\n");
    println!(
        "| servers | fullest to fair share | moved when one is added | met by one death, 1 copy | by one, 2 copies | by two at once, 2 copies |"
    );
    println!("|---|---|---|---|---|---|");
    for servers in [2, 3, 5, 10, 20, 64] {
        let (ring, bigger) = (ring(servers), ring(servers + 1));
        let owners: Vec<Vec<usize>> = (0..SESSIONS).map(|n| ring.replicas(&key(n), 2)).collect();
        let mut held = vec![0usize; servers];
        owners.iter().for_each(|owners| held[owners[0]] += 1);
        let fullest = *held.iter().max().unwrap() as f64 * servers as f64 / SESSIONS as f64;
        let moved = (0..SESSIONS).filter(|n| ring.first(&key(*n)) != bigger.first(&key(*n))).count();
        let share = |count: usize| count as f64 * 100.0 / SESSIONS as f64;
        // The worst server, and the worst two.
        let one = share(*held.iter().max().unwrap());
        let mut pairs = vec![0usize; servers * servers];
        owners.iter().for_each(|o| pairs[o[0].min(o[1]) * servers + o[0].max(o[1])] += 1);
        let two = share(*pairs.iter().max().unwrap());
        println!("| {servers} | {fullest:.2} × | {:.1} % | {one:.1} % | 0 % | {two:.1} % |", share(moved));
    }
}

fn ring(servers: usize) -> Ring {
    let server = |n: usize| NodeConfig { name: format!("10.0.0.{n}:11211"), weight: 1 };
    Ring::new(&(0..servers).map(server).collect::<Vec<_>>())
}

fn key(n: usize) -> String {
    format!("s:{n:043}")
}
