//! What a `User-Agent` field says of the client, as far as a fingerprint needs it: the browser's family and platform,
//! and which other agents the same device uses within one session.
//!
//! A device does not send one agent alone. Its media loader, download manager and previews have names of their own and
//! send the page's cookies; a browser names another platform while it shows a "desktop site", and Edge another family
//! in its compatibility mode. A program with a copied cookie, another family and another platform are none of these.
//! Nothing here is proof: the client chooses what the field says. Only `fingerprint` uses this.

/// A browser's family, or the product name of any other agent, and the platform.
pub type Kind<'a> = (&'a str, &'static str);

/// Names in the order in which they decide: Edge and Opera also say Chrome, Chrome also says Safari.
const FAMILIES: [(&str, &str); 8] = [
    ("Edg", EDGE),
    ("OPR/", "opera"),
    ("SamsungBrowser/", "samsung"),
    ("Firefox/", "firefox"),
    ("FxiOS/", "firefox"),
    ("CriOS/", "chrome"),
    ("Chrome/", "chrome"),
    ("Safari/", SAFARI),
];

const EDGE: &str = "edge";
const SAFARI: &str = "safari";

/// The product name of agents that name no browser: a web view of iOS, and Edge as Internet Explorer.
const UNNAMED: &str = "Mozilla";

/// The families of sessions that a system's own agent may belong to.
const BROWSERS: [&str; 7] = [SAFARI, "chrome", EDGE, "firefox", "samsung", "opera", UNNAMED];

const WINDOWS: &str = "windows";
const ANDROID: &str = "android";
const IOS: &str = "ios";
const MACOS: &str = "macos";
const LINUX: &str = "linux";

/// Android also says Linux.
const PLATFORMS: [(&str, &str); 7] = [
    ("Windows", WINDOWS),
    ("Android", ANDROID),
    ("iPhone", IOS),
    ("iPad", IOS),
    ("Macintosh", MACOS),
    ("CrOS", "chromeos"),
    ("Linux", LINUX),
];

/// Browsers that exist on one platform alone, whichever they name while they show a desktop site.
const OF_ONE_PLATFORM: [(&str, &str); 5] =
    [("CriOS/", IOS), ("FxiOS/", IOS), ("EdgiOS/", IOS), ("EdgA/", ANDROID), ("SamsungBrowser/", ANDROID)];

/// Agents that load resources for any browser of a system, and the platforms where they do.
const OF_A_SYSTEM: [(&str, &[&str]); 18] = [
    ("AppleCoreMedia/", &[IOS, MACOS]),
    ("QuickLook", &[IOS, MACOS]),
    ("QuickTime", &[IOS, MACOS, WINDOWS]),
    ("CFNetwork/", &[IOS, MACOS]),
    ("AndroidDownloadManager", &[ANDROID]),
    ("stagefright/", &[ANDROID]),
    ("ExoPlayer", &[ANDROID]),
    ("AndroidXMedia3", &[ANDROID]),
    ("Dalvik/", &[ANDROID]),
    ("okhttp/", &[ANDROID]),
    ("; wv)", &[ANDROID]),
    ("NSPlayer/", &[WINDOWS]),
    ("Windows-Media-Player/", &[WINDOWS]),
    ("WMFSDK/", &[WINDOWS]),
    ("WMPlayer/", &[WINDOWS]),
    ("Acrobat", &[WINDOWS, MACOS]),
    ("AcroForms", &[WINDOWS, MACOS]),
    ("GStreamer ", &[LINUX]),
];

/// Agents that run on other systems as well: libraries that any program may use. Their name alone is no evidence of a
/// platform, so the agent has to name it.
const OF_ANY_SYSTEM: [&str; 5] = ["QuickTime", "okhttp/", "Acrobat", "AcroForms", "GStreamer "];

/// Devices that name a platform's system and are not of that platform.
const OTHER_DEVICES: [&str; 4] = ["Apple TV", "AppleTV", "HomePod", "Watch"];

/// Returns what a session stores of its agent.
pub fn kind(agent: &str) -> Kind<'_> {
    (family(agent), named(&OF_ONE_PLATFORM, agent).unwrap_or_else(|| platform(agent)))
}

/// Returns what else the session of a request with this agent may have stored: the kinds of browsers that send this
/// agent beside their own. The kind that a former version determined for the same agent is among them, so that its
/// sessions stay valid.
pub fn companions(agent: &str) -> Vec<Kind<'static>> {
    if let Some((mark, exists_on)) = OF_A_SYSTEM.iter().find(|(mark, _)| agent.contains(mark)) {
        return of_a_system(agent, mark, exists_on);
    }
    let (family, platform) = kind(agent);
    let Some(family) = BROWSERS.iter().copied().find(|known| *known == family) else { return Vec::new() };
    let mut others = vec![(family, self::platform(agent))];
    match (family, platform) {
        (UNNAMED, IOS | MACOS) if agent.contains("AppleWebKit/") => others.extend(web_view(agent)),
        // Edge in its compatibility mode, and back from it.
        (UNNAMED, WINDOWS) if agent.contains("Trident/") || agent.contains("MSIE ") => others.push((EDGE, WINDOWS)),
        (EDGE, WINDOWS) => others.push((UNNAMED, WINDOWS)),
        // An iPad names Macintosh by default, and its web views do so too.
        (SAFARI, MACOS) => others.extend([(SAFARI, IOS), (UNNAMED, IOS), (UNNAMED, MACOS)]),
        (SAFARI, IOS) if agent.contains("iPad") => others.extend([(SAFARI, MACOS), (UNNAMED, IOS), (UNNAMED, MACOS)]),
        (_, IOS) => others.push((UNNAMED, IOS)),
        // Android's desktop site says Linux and nothing else.
        (_, ANDROID) => others.push((family, LINUX)),
        (_, LINUX) if family != SAFARI => others.push((family, ANDROID)),
        _ => {}
    }
    others
}

/// An agent that names no platform may be on each one that it exists on, unless it exists elsewhere as well; an agent
/// that names another platform is a program.
fn of_a_system(agent: &str, mark: &str, exists_on: &[&'static str]) -> Vec<Kind<'static>> {
    if OTHER_DEVICES.iter().any(|device| agent.contains(device)) {
        return Vec::new();
    }
    let said = named(&PLATFORMS, agent);
    if said.is_none() && OF_ANY_SYSTEM.contains(&mark) {
        return Vec::new();
    }
    let mut others = Vec::new();
    for platform in exists_on.iter().copied().filter(|platform| said.is_none_or(|said| said == *platform)) {
        others.extend(BROWSERS.iter().map(|family| (*family, platform)));
        match platform {
            IOS if agent.contains("iPad") => others.extend([(SAFARI, MACOS), (UNNAMED, MACOS)]),
            // A tablet's browser may have said Linux when the session began; its web views never do.
            ANDROID if said.is_some() && mark != "; wv)" => {
                others.extend(BROWSERS.iter().filter(|family| **family != SAFARI).map(|family| (*family, LINUX)));
            }
            _ => {}
        }
    }
    others
}

/// A web view of iOS, in which applications show pages: an iPad's may say Macintosh.
fn web_view(agent: &str) -> impl Iterator<Item = Kind<'static>> {
    let may_say_macintosh = !agent.contains("iPhone");
    let of_ipad = [(SAFARI, MACOS), (UNNAMED, MACOS)].into_iter().filter(move |_| may_say_macintosh);
    BROWSERS.iter().map(|family| (*family, IOS)).chain(of_ipad)
}

fn family(agent: &str) -> &str {
    // A program that is no browser: the product name before its version, such as `curl`.
    let product = agent.split(['/', ' ']).next().unwrap_or_default();
    named(&FAMILIES, agent).unwrap_or(product)
}

fn platform(agent: &str) -> &'static str {
    named(&PLATFORMS, agent).unwrap_or("other")
}

fn named(names: &[(&str, &'static str)], agent: &str) -> Option<&'static str> {
    names.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
}
