//! What every policy keeps to, and what each of them is for.

use std::cell::Cell;
use std::collections::VecDeque;

use super::*;

/// Servers with these shares and attempts in flight.
struct Servers {
    shares: Vec<u8>,
    in_flight: Vec<u64>,
    looks: Cell<usize>,
}

impl Servers {
    fn new(shares: &[u8]) -> Self {
        Self { shares: shares.to_vec(), in_flight: vec![0; shares.len()], looks: Cell::new(0) }
    }

    fn whole(count: usize) -> Self {
        Self::new(&vec![WHOLE; count])
    }

    fn only(count: usize, server: usize) -> Self {
        let mut shares = vec![0; count];
        shares[server] = WHOLE;
        Self::new(&shares)
    }
}

impl Candidates for Servers {
    fn share(&self, server: usize) -> u8 {
        self.looks.set(self.looks.get() + 1);
        self.shares[server]
    }

    fn in_flight(&self, server: usize) -> u64 {
        self.in_flight[server]
    }
}

fn policies() -> [Balance; 3] {
    [Balance::RoundRobin, Balance::LeastRequest, Balance::Sticky { cookie: "server".into() }]
}

/// How often each server was chosen first.
fn chosen(balancer: &Balancer, servers: &Servers, requests: usize) -> Vec<usize> {
    let mut counts = vec![0; servers.shares.len()];
    for _ in 0..requests {
        counts[balancer.first(servers, None).unwrap()] += 1;
    }
    counts
}

/// Pearson's statistic of these counts, if they should be in the proportions of `weights`.
fn chi_squared(counts: &[usize], weights: &[usize]) -> f64 {
    let (requests, total) = (counts.iter().sum::<usize>() as f64, weights.iter().sum::<usize>() as f64);
    let expected = |weight: &usize| requests * *weight as f64 / total;
    counts
        .iter()
        .zip(weights)
        .map(|(count, weight)| (*count as f64 - expected(weight)).powi(2) / expected(weight))
        .sum()
}

/// The values that the statistic exceeds with a probability of 0.001, for one degree of freedom, two, and so on.
const CRITICAL: [f64; 5] = [10.828, 13.816, 16.266, 18.467, 20.515];

#[test]
fn every_policy_chooses_a_candidate_where_there_is_one_and_the_same_for_one_key() {
    for policy in policies() {
        let balancer = Balancer::new(&policy, &[1, 2, 3]);
        assert_eq!(Balancer::new(&policy, &[]).first(&Servers::whole(0), None), None, "{policy:?}");
        for key in 0..20 {
            let (all, none) = (Servers::whole(3), Servers::new(&[0; 3]));
            assert_eq!(balancer.first(&all, Some(key)), balancer.first(&all, Some(key)), "{policy:?}");
            assert!(balancer.first(&all, None).is_some_and(|server| server < 3), "{policy:?}");
            for only in 0..3 {
                for key in [None, Some(key)] {
                    assert_eq!(balancer.first(&Servers::only(3, only), key), Some(only), "{policy:?}");
                    assert_eq!(balancer.another(&Servers::only(3, only), key), Some(only), "{policy:?}");
                }
            }
            assert_eq!((balancer.first(&none, Some(key)), balancer.another(&none, None)), (None, None), "{policy:?}");
        }
        let starting = Servers::new(&[1, 0, 0]);
        assert_eq!(
            balancer.first(&starting, None),
            Some(0),
            "{policy:?}: a slow start is no reason to refuse a request"
        );
    }
}

#[test]
fn every_policy_spreads_requests_by_weight() {
    fastrand::seed(20);
    for policy in policies() {
        for weights in [&[1, 1][..], &[1, 2, 3], &[5, 1], &[1, 1, 1, 1, 1], &[256, 128, 64, 1]] {
            let counts = chosen(&Balancer::new(&policy, weights), &Servers::whole(weights.len()), 60_000);
            let statistic = chi_squared(&counts, weights);
            assert!(statistic < CRITICAL[weights.len() - 2], "{policy:?} {weights:?}: {counts:?}, {statistic}");
        }
    }
}

#[test]
fn what_a_server_that_may_not_be_chosen_would_get_is_spread_by_weight_too() {
    fastrand::seed(21);
    for policy in policies() {
        let balancer = Balancer::new(&policy, &[4, 1, 2, 3]);
        let counts = chosen(&balancer, &Servers::new(&[0, WHOLE, WHOLE, WHOLE]), 60_000);
        let statistic = chi_squared(&counts[1..], &[1, 2, 3]);
        assert!(counts[0] == 0 && statistic < CRITICAL[1], "{policy:?}: {counts:?}, {statistic}");
    }
}

#[test]
fn keys_are_spread_by_weight() {
    for policy in policies() {
        let balancer = Balancer::new(&policy, &[1, 2, 3]);
        let mut counts = [0; 3];
        for key in 0..60_000_u64 {
            // Keys that differ in their upper bits alone.
            counts[balancer.first(&Servers::whole(3), Some(key << 40)).unwrap()] += 1;
        }
        let statistic = chi_squared(&counts, &[1, 2, 3]);
        assert!(statistic < CRITICAL[1], "{policy:?}: {counts:?}, {statistic}");
    }
}

#[test]
fn in_a_slow_start_a_server_has_that_share_of_its_weight() {
    fastrand::seed(22);
    for policy in policies() {
        for share in [1, 32, 128, 254] {
            let balancer = Balancer::new(&policy, &[1, 1, 1]);
            let mut servers = Servers::new(&[WHOLE, share, WHOLE]);
            // The others have more to do, and so lose every comparison.
            servers.in_flight = vec![9, 0, 9];
            let counts = chosen(&balancer, &servers, 60_000);
            // A drawn server that is not taken is drawn again, so that what is left of its weight goes to all.
            let statistic = chi_squared(&counts, &[256, usize::from(share), 256]);
            assert!(statistic < CRITICAL[1], "{policy:?} {share}: {counts:?}, {statistic}");
        }
    }
}

#[test]
fn of_two_servers_the_one_with_fewer_requests_in_flight_for_its_weight_is_chosen() {
    for (weights, in_flight, expected) in [
        (&[1, 1], [3, 2], 1),
        (&[1, 1], [2, 3], 0),
        (&[1, 1], [0, 1], 0),
        (&[1, 2], [2, 3], 1),
        (&[1, 2], [1, 3], 0),
        (&[2, 200], [1, 101], 0),
        (&[2, 200], [1, 99], 1),
    ] {
        let balancer = Balancer::new(&Balance::LeastRequest, weights);
        let servers = Servers { in_flight: in_flight.to_vec(), ..Servers::whole(2) };
        for _ in 0..1000 {
            assert_eq!(balancer.first(&servers, None), Some(expected), "{weights:?} {in_flight:?}");
            assert_eq!(balancer.another(&servers, None), Some(expected), "{weights:?} {in_flight:?}");
        }
    }
}

#[test]
fn requests_that_do_not_end_are_spread_by_weight() {
    fastrand::seed(23);
    for weights in [&[1, 1, 1][..], &[1, 2, 3], &[1, 4]] {
        let balancer = Balancer::new(&Balance::LeastRequest, weights);
        let mut servers = Servers::whole(weights.len());
        let total: usize = weights.iter().sum();
        for _ in 0..100 * total {
            let server = balancer.first(&servers, None).unwrap();
            servers.in_flight[server] += 1;
        }
        for (count, weight) in servers.in_flight.iter().zip(weights) {
            let fair = 100 * *weight as u64;
            assert!(count.abs_diff(fair) <= fair / 20, "{weights:?}: {:?}", servers.in_flight);
        }
    }
}

#[test]
fn a_choice_looks_at_as_many_servers_in_a_large_pool_as_in_a_small_one() {
    fastrand::seed(24);
    for policy in policies() {
        let mut looks = Vec::new();
        for count in [2, 20, 200] {
            for is_half_down in [false, true] {
                let balancer = Balancer::new(&policy, &vec![3; count]);
                let shares: Vec<u8> =
                    (0..count).map(|at| if is_half_down && at % 2 == 0 { 0 } else { WHOLE }).collect();
                let servers = Servers::new(&shares);
                chosen(&balancer, &servers, 1000);
                looks.push(servers.looks.get() as f64 / 1000.0);
            }
        }
        // 2 for round robin of which every other server is down; of two servers none is left to compare with then.
        assert!(looks.iter().all(|looks| *looks < 13.0), "{policy:?}: {looks:?}");
        assert!(looks[4] <= looks[0] + 0.5 && looks[5] <= looks[1] + 0.5, "{policy:?}: {looks:?}");
    }
}

/// The 99th percentile of the times, in milliseconds, that requests take at four servers, one of which needs five times as
/// long as each of the others. A server works on one request at a time; the clock is the simulation's own.
fn p99_with_a_slow_server(policy: &Balance) -> f64 {
    const SERVICE_MILLIS: [f64; 4] = [10.0, 10.0, 50.0, 10.0];
    const ARRIVALS_PER_SECOND: f64 = 76.0;
    const REQUESTS: usize = 20_000;
    fastrand::seed(25);
    let balancer = Balancer::new(policy, &[1; 4]);
    let mut servers = Servers::whole(4);
    // The moments at which the requests of each server will have ended.
    let mut ends: [VecDeque<f64>; 4] = Default::default();
    let (mut now, mut times) = (0.0, Vec::new());
    for _ in 0..REQUESTS {
        // Poisson arrivals.
        now += -(1.0 - fastrand::f64()).ln() * 1000.0 / ARRIVALS_PER_SECOND;
        for (server, ends) in ends.iter_mut().enumerate() {
            while ends.front().is_some_and(|end| *end <= now) {
                ends.pop_front();
            }
            servers.in_flight[server] = ends.len() as u64;
        }
        let server = balancer.first(&servers, None).unwrap();
        let begins = ends[server].back().map_or(now, |end| end.max(now));
        ends[server].push_back(begins + SERVICE_MILLIS[server]);
        times.push(begins + SERVICE_MILLIS[server] - now);
    }
    times.sort_by(f64::total_cmp);
    times[REQUESTS * 99 / 100]
}

#[test]
fn with_one_slow_server_least_request_has_at_most_half_of_round_robins_p99() {
    let [round_robin, least_request] =
        [Balance::RoundRobin, Balance::LeastRequest].map(|policy| p99_with_a_slow_server(&policy));
    assert!(least_request * 2.0 <= round_robin, "{least_request} ms, {round_robin} ms");
}
