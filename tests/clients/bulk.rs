//! A gigabyte each way, byte for byte, while the edge stays as small as it is; and bodies that are asked for first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Instant;

use ring::digest::{Context, SHA256};

use crate::harness::Daemon;
use crate::scene::{Scene, run, scene_with};

const BYTES: usize = 1 << 30;
/// Of the edge's memory, while a gigabyte passes.
const MOST_GROWTH: usize = 64 << 20;
const PIECE: usize = 1 << 20;

/// A gigabyte that repeats nothing: pieces of noise, each from another place of it.
fn pieces() -> impl Iterator<Item = &'static [u8]> {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let noise = NOISE.get_or_init(|| {
        let mut noise = vec![0; 2 * PIECE];
        fastrand::Rng::with_seed(7).fill(&mut noise);
        noise
    });
    (0..BYTES / PIECE).map(move |number| &noise[number * 1021 % PIECE..][..PIECE])
}

fn hex(digest: Context) -> String {
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_of_all() -> &'static str {
    static HASH: OnceLock<String> = OnceLock::new();
    HASH.get_or_init(|| {
        let mut digest = Context::new(&SHA256);
        pieces().for_each(|piece| digest.update(piece));
        hex(digest)
    })
}

/// A file of it, for curl to send.
fn file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gigabyte");
        let mut file = std::fs::File::create(&path).unwrap();
        pieces().for_each(|piece| file.write_all(piece).unwrap());
        path
    })
}

/// `/bulk/source` sends the gigabyte; `/bulk/sink` answers with the hash of what it was sent; `/bulk/refuse/STATUS` answers without
/// reading a body.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            // Whoever leaves in between is no concern of ours.
            std::thread::spawn(move || while answer(socket.as_ref().unwrap()).is_ok() {});
        }
    });
    address
}

fn answer(mut socket: &TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let path = head.split(' ').nth(1).unwrap();
    if path == "/bulk/source" {
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")?;
        return pieces().try_for_each(|piece| socket.write_all(piece));
    }
    if let Some(status) = path.strip_prefix("/bulk/refuse/") {
        write!(socket, "HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno")?;
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let expects = head.contains("\r\nexpect: 100-continue\r\n");
    if expects {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let (mut left, mut digest, mut chunk) =
        (length.parse::<usize>().unwrap(), Context::new(&SHA256), vec![0; 256 << 10]);
    while left > 0 {
        let most = left.min(chunk.len());
        let read = socket.read(&mut chunk[..most])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        digest.update(&chunk[..read]);
        left -= read;
    }
    let body = format!("{} {}", hex(digest), if expects { "asked" } else { "unasked" });
    write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn scene() -> Scene {
    scene_with("/bulk", application(), "", |builder| builder.server("limits: {body_bytes: 2GiB}"))
}

/// Runs something, and answers by how much the edge's memory grew meanwhile at the most.
fn growth(edge: &Daemon, run: impl FnOnce()) -> usize {
    let folder = PathBuf::from(format!("/proc/{}", edge.process.id()));
    let bytes = |field: &str| {
        let status = std::fs::read_to_string(folder.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim();
        line.strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    };
    // The kernel's mark of the highest is set back to what is there now.
    std::fs::write(folder.join("clear_refs"), "5").unwrap();
    let before = bytes("VmRSS:");
    run();
    bytes("VmHWM:").saturating_sub(before)
}

#[test]
fn a_gigabyte_passes_each_way_unchanged_and_the_edge_grows_by_little() {
    let scene = scene();
    let mut uploads = Vec::new();
    for version in ["--http1.1", "--http2"] {
        let begun = Instant::now();
        let grown = growth(&scene.edge, || {
            let mut curl = scene.curl();
            let answer = run(curl.arg(version).arg("--upload-file").arg(file()).arg(scene.url("/bulk/sink")));
            let answer = String::from_utf8(answer).unwrap();
            assert_eq!(answer.split(' ').next(), Some(hash_of_all()), "{version}");
            uploads.push(answer);
        });
        println!("{version}: upload in {:?}, the edge grew by {} KiB", begun.elapsed(), grown >> 10);
        assert!(grown < MOST_GROWTH, "{version}: the edge grew by {grown} bytes");

        let begun = Instant::now();
        let grown = growth(&scene.edge, || {
            let mut curl =
                scene.curl().arg(version).arg(scene.url("/bulk/source")).stdout(Stdio::piped()).spawn().unwrap();
            let (mut pipe, mut digest, mut chunk) =
                (curl.stdout.take().unwrap(), Context::new(&SHA256), vec![0; 256 << 10]);
            while let Ok(read @ 1..) = pipe.read(&mut chunk) {
                digest.update(&chunk[..read]);
            }
            assert!(curl.wait().unwrap().success());
            assert_eq!(hex(digest), hash_of_all(), "{version}");
        });
        println!("{version}: download in {:?}, the edge grew by {} KiB", begun.elapsed(), grown >> 10);
        assert!(grown < MOST_GROWTH, "{version}: the edge grew by {grown} bytes");
    }
    assert!(uploads[0].ends_with(" asked"), "curl asks first over HTTP/1.1, and the application hears it");
    std::fs::remove_file(file()).unwrap();
}

#[test]
fn a_body_that_is_refused_before_it_begins_is_not_sent() {
    let scene = scene();
    let body = scene.edge.folder.path().join("body");
    std::fs::write(&body, vec![0; 8 << 20]).unwrap();
    for status in ["401", "417"] {
        let mut curl = scene.curl();
        curl.args(["--http1.1", "--write-out", " %{http_code} %{size_upload}", "--expect100-timeout", "20"]);
        let told = run(curl.arg("--upload-file").arg(&body).arg(scene.url(&format!("/bulk/refuse/{status}"))));
        assert_eq!(String::from_utf8(told).unwrap(), format!("no {status} 0"));
    }
}
