//! The user directory's file replaced, overwritten, removed, damaged and restored under a running edge.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sentry_edge::clock::Clock;
use sentry_edge::config::UserStore;
use sentry_edge::users::{self, Grants, NewUser, Password, UserName, UserRegistry, password};

use crate::harness::edge::PASSWORD;
use crate::harness::{Client, Daemon, Origin, Response, edge, eventually, eventually_or, origin};

fn name(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn registry(file: &Path) -> Arc<dyn UserRegistry> {
    users::open(&UserStore::Sqlite { path: file.to_owned() }, Clock::default()).unwrap().registry
}

/// An edge with ada, bob and dan, of whom ada and bob are signed in.
struct Scene {
    daemon: Daemon,
    ada: Client,
    bob: Client,
}

fn scene(app: &Origin) -> Scene {
    let daemon = edge().service("iqueue", app).user("bob", &["iqueue"], &[]).user("dan", &["iqueue"], &[]).run();
    let sign_in = |user: &str| {
        let mut client = daemon.client();
        let hops = client.sign_in(&daemon.url("iqueue", "/"), user, PASSWORD);
        assert_eq!(hops.last().unwrap().status, 200, "{user}");
        client
    };
    let (ada, bob) = (sign_in("ada"), sign_in("bob"));
    Scene { ada, bob, daemon }
}

impl Scene {
    fn file(&self) -> PathBuf {
        self.daemon.folder.path().join("users.db")
    }

    /// A copy of the directory, as `VACUUM INTO` makes it, in which ada was disabled, dan's row is gone and cyd was added.
    fn copy(&self, name_of_copy: &str) -> PathBuf {
        let copy = self.daemon.folder.path().join(name_of_copy);
        let connection = rusqlite::Connection::open(self.file()).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        drop(connection);
        let directory = registry(&copy);
        directory.set_disabled(&name("ada"), true).unwrap();
        let grants = Grants::parse(vec!["iqueue".into()], Vec::new()).unwrap();
        let cyd = NewUser { name: name("cyd"), email: None, grants, disabled: false };
        let hash = password::hash(&Password::new(PASSWORD.into()).unwrap()).unwrap();
        directory.add(&cyd, &hash).unwrap();
        drop(directory);
        let connection = rusqlite::Connection::open(&copy).unwrap();
        connection.execute("DELETE FROM users WHERE name = 'dan'", []).unwrap();
        copy
    }

    /// The status that the login form is answered with, or that it is not shown with.
    fn login(&self, user: &str) -> u16 {
        self.login_page(user).status
    }

    fn login_page(&self, user: &str) -> Response {
        let mut client = self.daemon.client();
        let form = client.follow(&self.daemon.url("iqueue", "/")).pop().unwrap();
        if form.status == 200 { client.fill_in(&form, user, PASSWORD) } else { form }
    }

    fn up(&self) -> f64 {
        self.daemon.metric("sentry_edge_user_directory_up", "")
    }

    fn said(&self, what: &str) -> usize {
        self.daemon.process.stderr().lines().filter(|line| line.contains(what)).count()
    }

    fn open(&self, client: &mut Client) -> u16 {
        client.open(&self.daemon.url("iqueue", "/")).status
    }
}

/// The copy takes the place of the file, in one of the ways that people and programs do that.
type Way = fn(&Path, &Path);

const WAYS: &[(&str, Way)] = &[
    ("renamed", |copy, file| fs::rename(copy, file).unwrap()),
    ("copied over it", |copy, file| fs::write(file, fs::read(copy).unwrap()).unwrap()),
    ("removed, then put there", |copy, file| {
        fs::remove_file(file).unwrap();
        fs::copy(copy, file).unwrap();
    }),
    ("a symbolic link in its place", |copy, file| {
        let link = file.with_extension("link");
        symlink(copy, &link).unwrap();
        fs::rename(link, file).unwrap();
    }),
    ("garbage for a moment", |copy, file| {
        fs::write(file, "no database at all, but longer than the header of one would be: ".repeat(20)).unwrap();
        fs::rename(copy, file).unwrap();
    }),
    ("with the log of another database beside it", |copy, file| {
        leave_log_of_another(file);
        fs::rename(copy, file).unwrap();
    }),
];

/// Leaves a log beside a file, where a database in write-ahead mode has it: pages of the former directory, not written back.
pub fn leave_log_of_another(file: &Path) {
    let other = file.with_extension("other");
    fs::copy(file, &other).unwrap();
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute("UPDATE users SET email = 'old@example.com'", []).unwrap();
    for ending in ["-wal", "-shm"] {
        let beside = |path: &Path| PathBuf::from(format!("{}{ending}", path.display()));
        fs::copy(beside(&other), beside(file)).unwrap();
    }
}

#[test]
fn another_directory_in_its_place_is_seen_however_it_came_there() {
    let app = origin("app");
    for (what, way) in WAYS {
        let mut scene = scene(&app);
        let copy = scene.copy("users.new");
        assert_eq!((scene.open(&mut scene.ada.clone()), scene.login("cyd")), (200, 401), "{what}");
        way(&copy, &scene.file());
        let (daemon, ada) = (&scene.daemon, &mut scene.ada);
        eventually(&format!("ada is out: {what}"), || ada.open(&daemon.url("iqueue", "/")).status == 302);
        assert_eq!(scene.login("ada"), 401, "{what}: she was disabled");
        assert_eq!(scene.login("cyd"), 303, "{what}: she was added");
        assert_eq!(scene.login("dan"), 401, "{what}: he is not there");
        let bob = &mut scene.bob;
        assert_eq!(bob.open(&daemon.url("iqueue", "/")).status, 200, "{what}: he stays signed in");
        assert_eq!(scene.up(), 1.0, "{what}");
        assert_eq!(scene.daemon.admin("/readyz").json()["user_directory"], "ok", "{what}");
    }
}

#[test]
fn whoever_is_not_in_the_other_directory_is_out_as_well() {
    let app = origin("app");
    let mut scene = scene(&app);
    let copy = scene.copy("users.new");
    let connection = rusqlite::Connection::open(&copy).unwrap();
    // As in a directory that was made anew from somebody's list.
    connection.execute_batch("DELETE FROM users WHERE name = 'bob'; DELETE FROM deleted_users;").unwrap();
    drop(connection);
    fs::rename(copy, scene.file()).unwrap();
    let (daemon, bob) = (&scene.daemon, &mut scene.bob);
    eventually("bob is out", || bob.open(&daemon.url("iqueue", "/")).status == 302);
}

#[test]
fn an_older_copy_is_read_whole_and_its_users_can_sign_in() {
    let app = origin("app");
    let mut scene = scene(&app);
    let backup = scene.daemon.folder.path().join("backup.db");
    fs::copy(scene.file(), &backup).unwrap();
    let directory = || registry(&scene.file());
    for _ in 0..3 {
        directory().set_disabled(&name("ada"), true).unwrap();
        directory().set_disabled(&name("dan"), true).unwrap();
    }
    let (daemon, ada) = (&scene.daemon, &mut scene.ada);
    eventually("ada is out", || ada.open(&daemon.url("iqueue", "/")).status == 302);
    assert_eq!(scene.login("dan"), 401);
    fs::rename(&backup, scene.file()).unwrap();
    eventually("dan can sign in again", || scene.login("dan") == 303);
    // Tokens count in seconds: who signs in within the second of the change still counts as one of before it.
    eventually("and work", || {
        let mut dan = scene.daemon.client();
        let hops = dan.sign_in(&scene.daemon.url("iqueue", "/"), "dan", PASSWORD);
        hops.last().unwrap().status == 200
    });
    assert_eq!(scene.open(&mut scene.ada.clone()), 302, "a session that was ended stays so");
}

/// A change of a file, and what it is called.
type Change = (&'static str, fn(&Path));

/// What is no directory, put where one was.
const BAD: &[Change] = &[
    ("removed", |file| fs::remove_file(file).unwrap()),
    ("moved away", |file| fs::rename(file, file.with_extension("moved")).unwrap()),
    ("garbage", |file| fs::write(file, "name,password\nada,hunter2\n".repeat(100)).unwrap()),
    ("empty", |file| fs::write(file, "").unwrap()),
    ("cut in half", |file| {
        let whole = fs::read(file).unwrap();
        let half = file.with_extension("half");
        fs::write(&half, &whole[..whole.len() / 2]).unwrap();
        fs::rename(half, file).unwrap();
    }),
    ("a folder", |file| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
    ("a link that leads nowhere", |file| {
        fs::remove_file(file).unwrap();
        symlink("/nonexistent/users.db", file).unwrap();
    }),
    ("the database of something else", |file| {
        let other = file.with_extension("other");
        rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE things (id INTEGER)").unwrap();
        fs::rename(other, file).unwrap();
    }),
    ("of an older schema", |file| {
        let older = file.with_extension("older");
        fs::copy(file, &older).unwrap();
        rusqlite::Connection::open(&older).unwrap().pragma_update(None, "user_version", 2).unwrap();
        fs::rename(older, file).unwrap();
    }),
    ("of a newer schema", |file| {
        let newer = file.with_extension("newer");
        fs::copy(file, &newer).unwrap();
        rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        fs::rename(newer, file).unwrap();
    }),
];

#[test]
fn what_is_no_directory_is_a_directory_that_is_away_until_it_is_mended() {
    let app = origin("app");
    for (what, spoil) in BAD {
        let mut scene = scene(&app);
        let backup = scene.daemon.folder.path().join("backup.db");
        fs::copy(scene.file(), &backup).unwrap();
        spoil(&scene.file());
        eventually_or(|| scene.up() == 0.0, || format!("it is seen: {what}; {}", scene.daemon.process.stderr()));
        let ready = scene.daemon.admin("/readyz");
        let told = ready.json()["user_directory"].as_str().unwrap().to_owned();
        assert!(ready.status == 200 && told.contains("users.db"), "{what}: {} {told}", ready.status);
        let (daemon, bob) = (&scene.daemon, &mut scene.bob);
        assert_eq!(bob.open(&daemon.url("iqueue", "/")).status, 200, "{what}: who is signed in stays so");
        for user in ["dan", "cyd"] {
            let page = scene.login_page(user);
            assert_eq!((page.status, page.header("retry-after").is_some()), (503, true), "{what}");
            let says = "Your username and password cannot be checked right now.";
            assert!(page.body.contains(says) && !page.body.contains("Many people"), "{what}: {}", page.body);
        }
        scene.daemon.process.signal("HUP");
        eventually("it is read again", || {
            scene.daemon.metric("sentry_edge_config_reloads_total", "result=\"ok\"") > 0.0
        });
        assert_eq!(scene.said("user directory: away"), 1, "{what}: {}", scene.daemon.process.stderr());

        if scene.file().is_dir() {
            fs::remove_dir(scene.file()).unwrap();
        }
        fs::rename(&backup, scene.file()).unwrap();
        eventually(&format!("it is there again, {what}"), || scene.up() == 1.0);
        assert_eq!(scene.login("dan"), 303, "{what}");
        assert_eq!(scene.said("user directory: it answers again"), 1, "{what}");
        assert_eq!(scene.open(&mut scene.ada.clone()), 200, "{what}: nothing was said of her");
    }
}
