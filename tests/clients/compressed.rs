//! Pages that are compressed on their way, and read by those who asked for that: curl, with each encoding, and Chromium.

use serde_json::json;

use crate::harness::Origin;
use crate::scene::{in_a_browser, run, scene};

/// Some megabytes of text in which nothing stands twice in a row.
fn text() -> String {
    (0..200_000).map(|number| format!("{number}: {:x}\n", number * 2_654_435_761_u64 % 1_000_003)).collect()
}

fn application() -> Origin {
    Origin::answering(|_| hyper::Response::builder().header("content-type", "text/html").body(text().into()).unwrap())
}

#[test]
fn curl_reads_every_encoding_over_both_protocols() {
    let application = application();
    let scene = scene("/text", application.address, "");
    let page = scene.edge.folder.path().join("page");
    for version in ["--http1.1", "--http2"] {
        for encoding in ["gzip", "br", "zstd"] {
            let mut curl = scene.curl();
            curl.args([version, "--compressed", "--header", &format!("Accept-Encoding: {encoding}")]);
            curl.args(["--write-out", "%{size_download} %header{content-encoding}", "--output"]).arg(&page);
            let told = String::from_utf8(run(curl.arg(scene.url("/text")))).unwrap();
            let (size, named) = told.split_once(' ').unwrap();
            assert_eq!(named, encoding, "{version}");
            assert!(size.parse::<usize>().unwrap() < text().len() * 2 / 3, "{version} {encoding}: {size}");
            assert!(std::fs::read_to_string(&page).unwrap() == text(), "{version} {encoding}: another text");
        }
    }
}

#[test]
fn a_browser_reads_what_it_asked_for_in_fewer_bytes() {
    let application = application();
    let (_edge, browser) = in_a_browser(application.address, application.address);
    let found = browser.wait_for(
        "(async () => {
            const response = await fetch('/page');
            const text = await response.text();
            const [timing] = performance.getEntriesByName(new URL('/page', location).href);
            return [
                response.headers.get('content-encoding'), text.length,
                timing.encodedBodySize * 3 < timing.decodedBodySize * 2,
            ];
        })()",
    );
    assert_eq!(found, json!(["zstd", text().len(), true]));
}
