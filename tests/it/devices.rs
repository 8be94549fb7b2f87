//! What one device sends within a session, and what only a copied cookie would: agents as they are in the field.

use sentry_edge::server::FastPathMode;

use crate::harness::{Client, Edge, edge, origin};

const SAFARI_IPHONE: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4.1 Mobile/15E148 Safari/604.1";
const SAFARI_IPAD: &str = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1";
/// Also that of an iPad, which asks for desktop sites unless it is told otherwise.
const SAFARI_MAC: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4.1 Safari/605.1.15";
const CRIOS: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/123.0.6312.52 Mobile/15E148 Safari/604.1";
const CRIOS_DESKTOP: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/123 Version/11.1.1 Safari/605.1.15";
const FXIOS: &str = "Mozilla/5.0 (iPad; CPU OS 14_4_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/124.0 Mobile/15E148 Safari/605.1.15";
const FXIOS_DESKTOP: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:124.0) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/124.0 Safari/605.1.15";
const EDGIOS: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 EdgiOS/122.0.2365.99 Mobile/15E148 Safari/605.1.15";
const CHROME_MAC: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36";
const CHROME_WINDOWS: &str =
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36";
const CHROME_LINUX: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36";
const CHROME_CHROMEOS: &str =
    "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36";
/// Reduced, as Chrome sends it today.
const CHROME_ANDROID: &str =
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Mobile Safari/537.36";
const CHROME_ANDROID_BEFORE: &str = "Mozilla/5.0 (Linux; Android 13; SM-S901B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/112.0.5615.136 Mobile Safari/537.36";
const SAMSUNG: &str = "Mozilla/5.0 (Linux; Android 13; SAMSUNG SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/21.0 Chrome/110.0.5481.154 Mobile Safari/537.36";
const SAMSUNG_DESKTOP: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/21.0 Chrome/110.0.5481.154 Safari/537.36";
const FIREFOX_ANDROID: &str = "Mozilla/5.0 (Android 13; Mobile; rv:124.0) Gecko/124.0 Firefox/124.0";
const FIREFOX_LINUX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:124.0) Gecko/20100101 Firefox/124.0";
const FIREFOX_WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:124.0) Gecko/20100101 Firefox/124.0";
const EDGE_WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.0.0 Safari/537.36 Edg/123.0.2420.65";
const EDGE_ANDROID: &str = "Mozilla/5.0 (Linux; Android 10; HD1913) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/123.0.6312.99 Mobile Safari/537.36 EdgA/123.0.2420.81";
const OPERA_WINDOWS: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 Safari/537.36 OPR/108.0.0.0";
const IE_MODE: &str = "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko";
const COMPATIBILITY_VIEW: &str =
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 10.0; WOW64; Trident/7.0; .NET4.0C; .NET4.0E)";

const MEDIA_IPHONE: &str = "AppleCoreMedia/1.0.0.21E236 (iPhone; U; CPU OS 17_4_1 like Mac OS X; en_us)";
const MEDIA_IPAD: &str = "AppleCoreMedia/1.0.0.20G75 (iPad; U; CPU OS 16_6 like Mac OS X; de_de)";
const MEDIA_MAC: &str = "AppleCoreMedia/1.0.0.23E224 (Macintosh; U; Intel Mac OS X 14_4_1; en_us)";
const MEDIA_APPLE_TV: &str = "AppleCoreMedia/1.0.0.21L569 (Apple TV; U; CPU OS 17_4 like Mac OS X; en_us)";
const PREVIEW: &str = "MobileSafari/8617.2.4.10.8 CFNetwork/1494.0.7 Darwin/23.4.0";
const QUICK_LOOK: &str = "QuickLookSatellite/5.0 CFNetwork/1410.0.3 Darwin/22.6.0 (x86_64)";
const WEB_VIEW_IPHONE: &str =
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148";
const WEB_VIEW_FACEBOOK: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/21E236 [FBAN/FBIOS;FBAV/456.0.0.40.104;FBDV/iPhone14,5]";
const WEB_VIEW_IPAD: &str = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)";
const DOWNLOADS: &str = "AndroidDownloadManager/13 (Linux; U; Android 13; SM-S901B Build/TP1A.220624.014)";
const STAGEFRIGHT: &str = "stagefright/1.2 (Linux;Android 12)";
const EXOPLAYER: &str = "com.android.browser/2.1 (Linux;Android 11) ExoPlayerLib/2.18.1";
const DALVIK: &str = "Dalvik/2.1.0 (Linux; U; Android 13; SM-S901B Build/TP1A.220624.014)";
/// A library that any program on any system may be made with.
const OKHTTP: &str = "okhttp/4.12.0";
const OKHTTP_ANDROID: &str = "okhttp/4.12.0 (Linux; Android 13)";
const WEB_VIEW_ANDROID: &str = "Mozilla/5.0 (Linux; Android 13; SM-S901B; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/123.0.6312.99 Mobile Safari/537.36";
const MEDIA_WINDOWS: &str = "NSPlayer/12.00.19041.1 WMFSDK/12.00.19041.1";
const PLAYER_WINDOWS: &str = "Windows-Media-Player/12.0.19041.1";
const ACROBAT_WINDOWS: &str = "Mozilla/4.0 (compatible; Acrobat 23.8; Windows)";
const ACROBAT: &str = "Acrobat/23.8";
const ACROFORMS: &str = "AcroForms";
const QUICKTIME: &str = "QuickTime/7.7.9";
const QUICKTIME_WINDOWS: &str = "QuickTime/7.7.9 (qtver=7.7.9;os=Windows NT 10.0)";
const GSTREAMER: &str = "GStreamer souphttpsrc 1.22.0 libsoup/3.2.2";
const GSTREAMER_LINUX: &str = "GStreamer souphttpsrc 1.22.0 (Linux x86_64)";

const CURL: &str = "curl/8.6.0";
const PYTHON: &str = "python-requests/2.31.0";
const WGET: &str = "Wget/1.21.4 (linux-gnu)";
const WGET_DARWIN: &str = "Wget/1.21.4 (darwin22.6.0)";
const GO: &str = "Go-http-client/2.0";
const POWERSHELL: &str = "Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041.4046";
const POSTMAN: &str = "PostmanRuntime/7.37.0";
const JAVA: &str = "Java/17.0.10";

const SAME: bool = true;
const ANOTHER: bool = false;

/// The session's agent, the request's, and whether one device sends both.
const PAIRS: &[(&str, &str, bool)] = &[
    // Apple's media loader, previews and web views.
    (SAFARI_IPHONE, MEDIA_IPHONE, SAME),
    (SAFARI_IPAD, MEDIA_IPAD, SAME),
    (SAFARI_MAC, MEDIA_IPAD, SAME),
    (SAFARI_MAC, MEDIA_MAC, SAME),
    (CRIOS, MEDIA_IPHONE, SAME),
    (CRIOS_DESKTOP, MEDIA_IPAD, SAME),
    (FXIOS, MEDIA_IPAD, SAME),
    (EDGIOS, MEDIA_IPHONE, SAME),
    (SAFARI_IPHONE, PREVIEW, SAME),
    (SAFARI_MAC, PREVIEW, SAME),
    (CRIOS, PREVIEW, SAME),
    (SAFARI_MAC, QUICK_LOOK, SAME),
    (CHROME_MAC, QUICK_LOOK, SAME),
    (SAFARI_IPHONE, WEB_VIEW_IPHONE, SAME),
    (SAFARI_IPHONE, WEB_VIEW_FACEBOOK, SAME),
    (WEB_VIEW_IPHONE, SAFARI_IPHONE, SAME),
    (WEB_VIEW_IPHONE, WEB_VIEW_FACEBOOK, SAME),
    (WEB_VIEW_FACEBOOK, MEDIA_IPHONE, SAME),
    (SAFARI_MAC, WEB_VIEW_IPAD, SAME),
    (SAFARI_IPAD, WEB_VIEW_IPAD, SAME),
    (WEB_VIEW_IPAD, MEDIA_IPAD, SAME),
    (SAFARI_IPHONE, MEDIA_APPLE_TV, ANOTHER),
    (CHROME_MAC, MEDIA_IPHONE, ANOTHER),
    (CHROME_WINDOWS, MEDIA_IPHONE, ANOTHER),
    (CHROME_WINDOWS, MEDIA_MAC, ANOTHER),
    (CHROME_ANDROID, MEDIA_IPHONE, ANOTHER),
    (EDGE_WINDOWS, PREVIEW, ANOTHER),
    (CHROME_WINDOWS, WEB_VIEW_IPHONE, ANOTHER),
    (CHROME_MAC, WEB_VIEW_IPHONE, ANOTHER),
    // Desktop sites of iPhones and iPads.
    (SAFARI_IPAD, SAFARI_MAC, SAME),
    (SAFARI_MAC, SAFARI_IPAD, SAME),
    (SAFARI_IPHONE, SAFARI_MAC, SAME),
    (CRIOS, CRIOS_DESKTOP, SAME),
    (CRIOS_DESKTOP, CRIOS, SAME),
    (FXIOS, FXIOS_DESKTOP, SAME),
    (FXIOS_DESKTOP, FXIOS, SAME),
    (CRIOS_DESKTOP, CHROME_MAC, ANOTHER),
    (CHROME_MAC, CRIOS, ANOTHER),
    (SAFARI_MAC, CHROME_MAC, ANOTHER),
    (SAFARI_MAC, SAFARI_IPHONE, ANOTHER),
    (SAFARI_IPHONE, CRIOS, ANOTHER),
    // Android's downloads, media and web views.
    (CHROME_ANDROID, DOWNLOADS, SAME),
    (CHROME_ANDROID, STAGEFRIGHT, SAME),
    (CHROME_ANDROID, EXOPLAYER, SAME),
    (CHROME_ANDROID, DALVIK, SAME),
    (CHROME_ANDROID, OKHTTP_ANDROID, SAME),
    (CHROME_ANDROID, WEB_VIEW_ANDROID, SAME),
    (WEB_VIEW_ANDROID, OKHTTP_ANDROID, SAME),
    (CHROME_ANDROID, OKHTTP, ANOTHER),
    (WEB_VIEW_ANDROID, OKHTTP, ANOTHER),
    (WEB_VIEW_ANDROID, CHROME_ANDROID, SAME),
    (SAMSUNG, DOWNLOADS, SAME),
    (SAMSUNG, STAGEFRIGHT, SAME),
    (FIREFOX_ANDROID, DOWNLOADS, SAME),
    (EDGE_ANDROID, STAGEFRIGHT, SAME),
    (CHROME_ANDROID_BEFORE, CHROME_ANDROID, SAME),
    (CHROME_WINDOWS, DOWNLOADS, ANOTHER),
    (SAFARI_IPHONE, STAGEFRIGHT, ANOTHER),
    (SAFARI_IPHONE, OKHTTP, ANOTHER),
    (CHROME_LINUX, OKHTTP, ANOTHER),
    (CHROME_WINDOWS, OKHTTP_ANDROID, ANOTHER),
    (CHROME_LINUX, WEB_VIEW_ANDROID, ANOTHER),
    (CHROME_WINDOWS, WEB_VIEW_ANDROID, ANOTHER),
    // Desktop sites of Android, which say Linux.
    (CHROME_ANDROID, CHROME_LINUX, SAME),
    (CHROME_LINUX, CHROME_ANDROID, SAME),
    (CHROME_LINUX, DOWNLOADS, SAME),
    (SAMSUNG, SAMSUNG_DESKTOP, SAME),
    (SAMSUNG_DESKTOP, SAMSUNG, SAME),
    (FIREFOX_ANDROID, FIREFOX_LINUX, SAME),
    (CHROME_LINUX, SAMSUNG, ANOTHER),
    (CHROME_ANDROID, FIREFOX_LINUX, ANOTHER),
    (CHROME_ANDROID, SAMSUNG, ANOTHER),
    (CHROME_ANDROID, CHROME_CHROMEOS, ANOTHER),
    // Windows: compatibility modes, media, documents.
    (EDGE_WINDOWS, IE_MODE, SAME),
    (EDGE_WINDOWS, COMPATIBILITY_VIEW, SAME),
    (IE_MODE, EDGE_WINDOWS, SAME),
    (IE_MODE, COMPATIBILITY_VIEW, SAME),
    (EDGE_WINDOWS, MEDIA_WINDOWS, SAME),
    (CHROME_WINDOWS, MEDIA_WINDOWS, SAME),
    (IE_MODE, MEDIA_WINDOWS, SAME),
    (FIREFOX_WINDOWS, PLAYER_WINDOWS, SAME),
    (EDGE_WINDOWS, ACROBAT_WINDOWS, SAME),
    (CHROME_WINDOWS, IE_MODE, ANOTHER),
    (SAFARI_MAC, MEDIA_WINDOWS, ANOTHER),
    (CHROME_LINUX, PLAYER_WINDOWS, ANOTHER),
    (CHROME_MAC, ACROBAT_WINDOWS, ANOTHER),
    (EDGE_WINDOWS, ACROBAT, ANOTHER),
    (CHROME_MAC, ACROBAT, ANOTHER),
    (EDGE_WINDOWS, ACROFORMS, ANOTHER),
    (SAFARI_MAC, ACROFORMS, ANOTHER),
    (FIREFOX_WINDOWS, QUICKTIME_WINDOWS, SAME),
    (SAFARI_MAC, QUICKTIME_WINDOWS, ANOTHER),
    (FIREFOX_WINDOWS, QUICKTIME, ANOTHER),
    (SAFARI_MAC, QUICKTIME, ANOTHER),
    (FIREFOX_LINUX, GSTREAMER_LINUX, SAME),
    (FIREFOX_LINUX, GSTREAMER, ANOTHER),
    // Other families and platforms, with the same engine and without.
    (CHROME_WINDOWS, EDGE_WINDOWS, ANOTHER),
    (EDGE_WINDOWS, CHROME_WINDOWS, ANOTHER),
    (CHROME_WINDOWS, OPERA_WINDOWS, ANOTHER),
    (CHROME_WINDOWS, FIREFOX_WINDOWS, ANOTHER),
    (CHROME_WINDOWS, CHROME_MAC, ANOTHER),
    (CHROME_WINDOWS, CHROME_LINUX, ANOTHER),
    (CHROME_WINDOWS, CHROME_ANDROID, ANOTHER),
    (CHROME_MAC, CHROME_CHROMEOS, ANOTHER),
    (SAFARI_IPHONE, CHROME_ANDROID, ANOTHER),
    // Programs.
    (CHROME_WINDOWS, CURL, ANOTHER),
    (SAFARI_IPHONE, CURL, ANOTHER),
    (CHROME_LINUX, PYTHON, ANOTHER),
    (CHROME_LINUX, WGET, ANOTHER),
    (SAFARI_MAC, WGET_DARWIN, ANOTHER),
    (CHROME_ANDROID, GO, ANOTHER),
    (CHROME_ANDROID, JAVA, ANOTHER),
    (EDGE_WINDOWS, POWERSHELL, ANOTHER),
    (CHROME_MAC, POSTMAN, ANOTHER),
    (CHROME_WINDOWS, "", ANOTHER),
    (SAFARI_IPHONE, "", ANOTHER),
    (CHROME_WINDOWS, "Mozilla/5.0", ANOTHER),
    (CURL, "curl/7.88.1", SAME),
    (CURL, PYTHON, ANOTHER),
    (CURL, MEDIA_IPHONE, ANOTHER),
];

/// A browser of this agent that has signed in.
fn signed_in(edge: &Edge, agent: &str) -> Client {
    let mut browser = edge.client().user_agent(agent);
    edge.sign_in(&mut browser, "iqueue", "ada");
    browser
}

#[test]
fn a_session_follows_its_device_and_no_other() {
    let origin = origin("iqueue");
    for fast_path in [FastPathMode::On, FastPathMode::Off] {
        let edge = edge().service("iqueue", &origin).fast_path(fast_path).start();
        let (url, own) = (edge.url("iqueue", "/film.mp4"), edge.url("iqueue", "/.sentry/currentUser"));
        let mut wrong = Vec::new();
        let mut session: Option<(&str, Client)> = None;
        let mut pairs = PAIRS.to_vec();
        pairs.sort_by_key(|(of_session, ..)| *of_session);
        for (of_session, agent, expected) in pairs {
            if session.as_ref().is_none_or(|(agent, _)| *agent != of_session) {
                session = Some((of_session, signed_in(&edge, of_session)));
            }
            let browser = session.as_ref().unwrap().1.clone().user_agent(agent);
            // As a part of a page and as a range, the way that media loaders ask.
            let part = browser.clone().ask("GET", &url).field("range", "bytes=0-1").send().status;
            let known = browser.clone().get(&own).json()["currentUser"].is_object();
            if (part == 200) != expected || known != expected || !(part == 200 || part == 401) {
                wrong.push(format!("{of_session}\n  {agent}\n  expected {expected}: {part}, current user {known}"));
            }
        }
        assert!(wrong.is_empty(), "{fast_path:?}: {} of {}:\n{}", wrong.len(), PAIRS.len(), wrong.join("\n"));
    }
}

#[test]
fn a_media_loader_keeps_its_session_from_idling_out() {
    let origin = origin("iqueue");
    let edge = edge().service_with("iqueue", &origin, "idle_timeout: 5m").start();
    let url = edge.url("iqueue", "/film.mp4");
    let browser = signed_in(&edge, SAFARI_IPAD);
    for _ in 0..4 {
        edge.let_pass(std::time::Duration::from_secs(200));
        assert_eq!(browser.clone().user_agent(MEDIA_IPAD).get(&url).status, 200);
    }
    assert_eq!(browser.clone().get(&url).status, 200);
    // One that is refused does not.
    edge.let_pass(std::time::Duration::from_secs(200));
    assert_eq!(browser.clone().user_agent(CURL).get(&url).status, 401);
    edge.let_pass(std::time::Duration::from_secs(200));
    assert_eq!(browser.clone().get(&url).status, 401);
}
