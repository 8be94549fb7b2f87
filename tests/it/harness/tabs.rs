//! A browser with several tabs whose replies come late.
//!
//! A request is three steps, between which everything else may happen: it is sent with the cookies of that moment, it
//! is processed by an edge, and its reply is delivered, which sets its cookies and follows its redirect. A person
//! opens addresses, fills in forms and presses buttons. What a page shows is read from the page alone.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use url::Url;

use super::client::{Client, Response, client};
use super::edge::PASSWORD;

/// Chromium gives up after 20. A flow that goes on beyond this has no end.
const MOST_REDIRECTS: usize = 30;

/// What the browser says of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// `Sec-Fetch-…`, as all browsers since 2023.
    Sent,
    /// Nothing, and `Origin: null` with forms, as Safari before 16.4.
    Absent,
}

/// What a person sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// The application's page as this user.
    Served(String),
    /// A field for the password.
    Form,
    /// `/login` names who is signed in, and asks for no password.
    SignedInAs(String),
    SignedOut,
    /// Status and title of any other page.
    Page(u16, String),
    /// Redirects without an end.
    Endless,
}

pub struct Page {
    pub response: Response,
    pub redirects: usize,
}

struct Sent {
    /// The cookies of the moment in which it was sent.
    jar: Client,
    method: &'static str,
    url: Url,
    form: Option<String>,
    site: FetchSite,
    redirects: usize,
}

/// Where a request comes from, in the order in which a chain of redirects goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FetchSite {
    None,
    SameOrigin,
    SameSite,
    CrossSite,
}

enum Tab {
    Empty,
    Sent(Box<Sent>),
    Answered(Box<Sent>, Box<Response>),
    Page(Box<Page>),
}

type Balancer = Box<dyn FnMut(&Url) -> SocketAddr>;

pub struct Tabs {
    pub jar: Client,
    tabs: Vec<Tab>,
    balancer: Balancer,
    /// Host and name of cookies that this browser does not keep.
    refused: BTreeSet<(String, String)>,
    metadata: Metadata,
}

impl Tabs {
    pub fn new(edge: SocketAddr, tabs: usize) -> Self {
        Self {
            jar: client(edge),
            tabs: (0..tabs).map(|_| Tab::Empty).collect(),
            balancer: Box::new(move |_| edge),
            refused: BTreeSet::new(),
            metadata: Metadata::Sent,
        }
    }

    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Each request goes to the edge that this names.
    pub fn balanced(mut self, balancer: impl FnMut(&Url) -> SocketAddr + 'static) -> Self {
        self.balancer = Box::new(balancer);
        self
    }

    pub fn rebalance(&mut self, balancer: impl FnMut(&Url) -> SocketAddr + 'static) {
        self.balancer = Box::new(balancer);
    }

    /// This cookie is never kept.
    pub fn refusing(mut self, host: &str, name: &str) -> Self {
        self.refused.insert((host.into(), name.into()));
        self
    }

    /// A person types an address or chooses a bookmark.
    pub fn open(&mut self, tab: usize, url: &str) {
        self.send(tab, "GET", Url::parse(url).unwrap(), None, FetchSite::None, 0);
    }

    /// A person follows a link to this address on a page of another site.
    pub fn follow_foreign_link(&mut self, tab: usize, url: &str) {
        self.send(tab, "GET", Url::parse(url).unwrap(), None, FetchSite::CrossSite, 0);
    }

    /// A person follows a link of the page that is there.
    pub fn follow_link(&mut self, tab: usize, address: &str) {
        let url = self.url_of(tab).join(address).unwrap();
        let site = Self::site_of(&self.url_of(tab), &url);
        self.send(tab, "GET", url, None, site, 0);
    }

    /// Fills in the page's form and sends it.
    pub fn type_password(&mut self, tab: usize, user: &str) {
        self.type_credentials(tab, user, PASSWORD);
    }

    pub fn type_credentials(&mut self, tab: usize, user: &str, password: &str) {
        self.submit(tab, "name=\"password\"", &[("username", user), ("password", password)]);
    }

    /// Presses the button, or follows the link, that bears this text.
    pub fn press(&mut self, tab: usize, text: &str) {
        let body = self.body_of(tab);
        let link = body.split("<a ").skip(1).find(|link| link.split("</a>").next().unwrap().contains(text));
        if let Some(link) = link {
            let tag = format!(" {}", link.split('>').next().unwrap());
            let address = unescape(attribute(&tag, "href").unwrap_or_default());
            return self.follow_link(tab, &address);
        }
        self.submit(tab, text, &[]);
    }

    /// Sends the form in which this stands, with its hidden fields and these others.
    fn submit(&mut self, tab: usize, mark: &str, others: &[(&str, &str)]) {
        let (body, page) = (self.body_of(tab), self.url_of(tab));
        let form = body.split("<form").skip(1).map(|form| form.split("</form>").next().unwrap());
        let form =
            form.clone().find(|form| form.contains(mark)).unwrap_or_else(|| panic!("no form with {mark}: {body}"));
        let (head, inside) = form.split_once('>').unwrap();
        let url = match attribute(head, "action") {
            Some(action) if !action.is_empty() => page.join(&unescape(action)).unwrap(),
            _ => page.clone(),
        };
        let mut fields = url::form_urlencoded::Serializer::new(String::new());
        for input in inside.split("<input").skip(1).map(|input| input.split('>').next().unwrap()) {
            if attribute(input, "type") == Some("hidden") {
                fields.append_pair(
                    attribute(input, "name").unwrap(),
                    &unescape(attribute(input, "value").unwrap_or_default()),
                );
            }
        }
        // The button that is pressed is sent with the form where it has a name.
        let button =
            inside.split("<button").skip(1).find(|button| button.split("</button>").next().unwrap().contains(mark));
        if let Some(head) = button.and_then(|button| button.split('>').next())
            && let Some(name) = attribute(head, "name")
        {
            fields.append_pair(name, &unescape(attribute(head, "value").unwrap_or_default()));
        }
        fields.extend_pairs(others);
        let site = Self::site_of(&page, &url);
        if attribute(head, "method").is_some_and(|method| method.eq_ignore_ascii_case("post")) {
            self.send(tab, "POST", url, Some(fields.finish()), site, 0);
        } else {
            let mut url = url;
            url.set_query(Some(&fields.finish()));
            self.send(tab, "GET", url, None, site, 0);
        }
    }

    fn site_of(from: &Url, to: &Url) -> FetchSite {
        let domain = |url: &Url| url.host_str().unwrap().split_once('.').unwrap().1.to_owned();
        if from.origin() == to.origin() {
            FetchSite::SameOrigin
        } else if domain(from) == domain(to) {
            FetchSite::SameSite
        } else {
            FetchSite::CrossSite
        }
    }

    fn send(
        &mut self,
        tab: usize,
        method: &'static str,
        url: Url,
        form: Option<String>,
        site: FetchSite,
        redirects: usize,
    ) {
        let mut jar = self.jar.clone();
        jar.move_to((self.balancer)(&url));
        self.tabs[tab] = Tab::Sent(Box::new(Sent { jar, method, url, form, site, redirects }));
    }

    /// The edge answers; the reply is on its way.
    pub fn process(&mut self, tab: usize) {
        let Tab::Sent(mut sent) = std::mem::replace(&mut self.tabs[tab], Tab::Empty) else {
            panic!("nothing was sent")
        };
        let mut asking = sent.jar.ask(sent.method, sent.url.as_str()).accept("text/html,application/xhtml+xml");
        if self.metadata == Metadata::Sent {
            let site = match sent.site {
                FetchSite::None => "none",
                FetchSite::SameOrigin => "same-origin",
                FetchSite::SameSite => "same-site",
                FetchSite::CrossSite => "cross-site",
            };
            asking = asking.field("sec-fetch-mode", "navigate").field("sec-fetch-dest", "document");
            asking = asking.field("sec-fetch-site", site).field("sec-fetch-user", "?1");
        }
        if let Some(form) = &sent.form {
            asking = asking.field("content-type", "application/x-www-form-urlencoded").body(form.clone());
            asking = asking.field("origin", "null");
        }
        let response = asking.send();
        self.tabs[tab] = Tab::Answered(sent, Box::new(response));
    }

    /// The reply arrives: its cookies are set, and its redirect is followed.
    pub fn deliver(&mut self, tab: usize) {
        let Tab::Answered(sent, response) = std::mem::replace(&mut self.tabs[tab], Tab::Empty) else {
            panic!("no reply is on its way")
        };
        self.jar.receive(&response);
        for (host, name) in &self.refused {
            self.jar.forget_cookie(host, name);
        }
        let Some(location) = response.location().filter(|_| (300..400).contains(&response.status)) else {
            self.tabs[tab] = Tab::Page(Box::new(Page { response: *response, redirects: sent.redirects }));
            return;
        };
        let redirects = sent.redirects + 1;
        if redirects == MOST_REDIRECTS {
            self.tabs[tab] = Tab::Page(Box::new(Page { response: *response, redirects }));
            return;
        }
        let next = sent.url.join(&location).unwrap();
        let site = match sent.site {
            FetchSite::None => FetchSite::None,
            site => site.max(Self::site_of(&sent.url, &next)),
        };
        let keeps_method = matches!(response.status, 307 | 308);
        let (method, form) = if keeps_method { (sent.method, sent.form.clone()) } else { ("GET", None) };
        self.send(tab, method, next, form, site, redirects);
    }

    /// The next step of this tab's request, if one is under way.
    pub fn step(&mut self, tab: usize) {
        match self.tabs[tab] {
            Tab::Sent(_) => self.process(tab),
            Tab::Answered(..) => self.deliver(tab),
            Tab::Empty | Tab::Page(_) => {}
        }
    }

    pub fn is_under_way(&self, tab: usize) -> bool {
        matches!(self.tabs[tab], Tab::Sent(_) | Tab::Answered(..))
    }

    /// Whether a request that waits for its edge or its reply is a login or a logout.
    pub fn changes_who(&self, tab: usize) -> bool {
        match &self.tabs[tab] {
            Tab::Sent(sent) | Tab::Answered(sent, _) => sent.method == "POST" || sent.url.path().ends_with("/logout"),
            Tab::Empty | Tab::Page(_) => false,
        }
    }

    /// What a script of the application's, a history or a log would see of a request that is under way.
    pub fn address_under_way(&self, tab: usize) -> String {
        match &self.tabs[tab] {
            Tab::Sent(sent) | Tab::Answered(sent, _) => sent.url.to_string(),
            Tab::Empty | Tab::Page(_) => panic!("nothing is under way: {:?}", self.page(tab).map(Page::told)),
        }
    }

    /// Whose password is under way.
    pub fn user_under_way(&self, tab: usize) -> Option<String> {
        let (Tab::Sent(sent) | Tab::Answered(sent, _)) = &self.tabs[tab] else { return None };
        let fields = url::form_urlencoded::parse(sent.form.as_ref()?.as_bytes());
        fields.into_owned().find_map(|(name, value)| (name == "username").then_some(value))
    }

    /// Of the reply that is under way.
    pub fn status_under_way(&self, tab: usize) -> u16 {
        match &self.tabs[tab] {
            Tab::Answered(_, response) => response.status,
            _ => panic!("no reply is under way"),
        }
    }

    pub fn waits_for_its_edge(&self, tab: usize) -> bool {
        matches!(self.tabs[tab], Tab::Sent(_))
    }

    /// Until the tab shows a page.
    pub fn settle(&mut self, tab: usize) -> &Page {
        while self.is_under_way(tab) {
            self.step(tab);
        }
        self.page(tab).expect("the tab has been nowhere")
    }

    /// All tabs, one hop after the other, as restored tabs run side by side.
    pub fn settle_all(&mut self) {
        while (0..self.tabs.len()).any(|tab| self.is_under_way(tab)) {
            for tab in 0..self.tabs.len() {
                if self.waits_for_its_edge(tab) {
                    self.process(tab);
                }
            }
            for tab in 0..self.tabs.len() {
                if self.is_under_way(tab) {
                    self.deliver(tab);
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.tabs.len()
    }

    pub fn page(&self, tab: usize) -> Option<&Page> {
        match &self.tabs[tab] {
            Tab::Page(page) => Some(page),
            _ => None,
        }
    }

    fn url_of(&self, tab: usize) -> Url {
        Url::parse(&self.page(tab).expect("the tab shows no page").response.url).unwrap()
    }

    fn body_of(&self, tab: usize) -> String {
        self.page(tab).expect("the tab shows no page").response.body.clone()
    }

    pub fn shown(&self, tab: usize) -> Shown {
        self.page(tab).expect("the tab shows no page").shown()
    }

    /// Opens an address, lets everything that follows happen at once, and says what is seen.
    pub fn visit(&mut self, tab: usize, url: &str) -> String {
        self.open(tab, url);
        self.settle(tab).told()
    }

    /// Types the password on the page that is there; the rest as [`visit`](Self::visit).
    pub fn sign_in(&mut self, tab: usize, user: &str) -> String {
        self.type_password(tab, user);
        self.settle(tab).told()
    }

    /// Opens a service and types the password; again where a busy machine asks for that.
    pub fn visit_as(&mut self, tab: usize, url: &str, user: &str) -> String {
        self.open(tab, url);
        assert_eq!(self.settle(tab).shown(), Shown::Form, "{}", self.page(tab).unwrap().told());
        let mut told = self.sign_in(tab, user);
        for _ in 0..10 {
            let Shown::Page(503, _) = self.shown(tab) else { break };
            std::thread::sleep(std::time::Duration::from_millis(200));
            told = self.sign_in(tab, user);
        }
        told
    }

    /// Signs out at the service whose page is there.
    pub fn log_out(&mut self, tab: usize) -> String {
        self.follow_link(tab, "/.sentry/logout");
        self.settle(tab).told()
    }
}

impl Page {
    pub fn shown(&self) -> Shown {
        let Response { status, body, .. } = &self.response;
        let title = || between(body, "<title>", "</title>").to_owned();
        if self.redirects >= MOST_REDIRECTS {
            Shown::Endless
        } else if body.contains("served as ") {
            Shown::Served(between(body, "served as ", ";").to_owned())
        } else if body.contains("name=\"password\"") && matches!(status, 200 | 401) {
            Shown::Form
        } else if *status == 200 && title().contains("igned out") {
            Shown::SignedOut
        } else if *status == 200 && self.path() == "/login" && text_of(body).to_lowercase().contains("signed in as ") {
            let text = text_of(body);
            let at = text.to_lowercase().find("signed in as ").unwrap() + "signed in as ".len();
            let name: String = text[at..].trim_start().chars().take_while(|c| c.is_alphanumeric()).collect();
            Shown::SignedInAs(name)
        } else {
            Shown::Page(*status, title())
        }
    }

    fn path(&self) -> String {
        Url::parse(&self.response.url).unwrap().path().to_owned()
    }

    /// Final address, who is shown, number of redirects.
    pub fn told(&self) -> String {
        format!("{} · {} · {} redirects", self.address(), self.shown(), self.redirects)
    }

    /// Without scheme, domain and port; of a query on the sign-on host only that there is one.
    pub fn address(&self) -> String {
        let url = Url::parse(&self.response.url).unwrap();
        let host = url.host_str().unwrap().split('.').next().unwrap();
        let query = match url.query() {
            None => String::new(),
            Some(_) if host == "sentry" => "?…".into(),
            Some(query) => format!("?{query}"),
        };
        format!("{host}{}{query}", url.path())
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Served(user) => write!(f, "served as {user}"),
            Self::Form => f.write_str("form"),
            Self::SignedInAs(user) => write!(f, "signed in as {user}"),
            Self::SignedOut => f.write_str("signed out"),
            Self::Page(status, title) => write!(f, "{status} {title}"),
            Self::Endless => f.write_str("no end"),
        }
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).map_or("", |(_, rest)| rest.split(after).next().unwrap_or_default()).trim()
}

/// The value of an attribute of a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let at = tag.find(&format!(" {name}=\""))?;
    tag[at + name.len() + 3..].split('"').next()
}

fn unescape(text: &str) -> String {
    text.replace("&#38;", "&").replace("&#x26;", "&").replace("&amp;", "&").replace("&#34;", "\"")
}

/// What stands between the tags.
fn text_of(html: &str) -> String {
    let html = html.split_once("<body").map_or(html, |(_, body)| body);
    let mut text = String::new();
    let mut inside = true;
    for character in html.chars() {
        match character {
            '<' => inside = true,
            '>' => inside = false,
            character if !inside => text.push(character),
            _ => {}
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
