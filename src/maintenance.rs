//! Services in maintenance: switched on by a file that exists, or by an administrator.
//!
//! `server` looks for the files and `admin` has the administrator's switch; `proxy` reads the state, which costs a request
//! one load of a number.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntGauge, IntGaugeVec};

use crate::blocking::BlockingThreads;
use crate::config::{Config, Faults};

/// The bits of a switch's state.
const BY_FILE: u8 = 1;
const BY_API: u8 = 2;

/// What has switched a service's maintenance on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceState {
    /// The configured file exists.
    pub by_file: bool,
    /// An administrator has switched it on.
    pub by_api: bool,
}

/// The switches of all services. There is one value for the process: what an administrator has set is kept over a reload,
/// and not over a restart.
pub struct MaintenanceSwitches {
    services: Mutex<BTreeMap<Arc<str>, Arc<Switch>>>,
    /// label `service`
    gauge: IntGaugeVec,
}

/// The switch of one service.
pub struct Switch {
    service: Arc<str>,
    state: AtomicU8,
    /// The file that switches it on, by the present configuration.
    file: Mutex<Option<PathBuf>>,
    /// 1 while the service is in maintenance.
    gauge: IntGauge,
}

/// The services of a configuration, the file that switches each one's maintenance on, and what was found of it. `None` where
/// the file system has not answered.
pub struct FirstLook(Vec<(Arc<str>, Option<PathBuf>, Option<Found>)>);

/// What a look at a file has found.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// As [`exists`].
    exists: Option<bool>,
    /// Whether there is a folder that the file could be made in.
    has_folder: bool,
}

impl MaintenanceState {
    const fn of(bits: u8) -> Self {
        Self { by_file: bits & BY_FILE != 0, by_api: bits & BY_API != 0 }
    }

    pub const fn is_on(self) -> bool {
        self.by_file || self.by_api
    }
}

impl MaintenanceSwitches {
    pub fn new(gauge: IntGaugeVec) -> Self {
        Self { services: Mutex::default(), gauge }
    }

    /// Takes up a configuration: its services have a switch, and others have none any more.
    pub fn configure(&self, first_look: FirstLook) {
        let FirstLook(services) = first_look;
        let names: HashSet<&str> = services.iter().map(|(service, ..)| &**service).collect();
        self.lock().retain(|name, _| {
            let stays = names.contains(&**name);
            if !stays {
                // An error would mean that it has none.
                self.gauge.remove_label_values(&[name]).ok();
            }
            stays
        });
        for (service, file, found) in services {
            self.of(&service).follow(file, found.and_then(|found| found.exists));
        }
    }

    /// Returns the switch of a service, and makes one where there is none.
    pub fn of(&self, service: &Arc<str>) -> Arc<Switch> {
        let new = || {
            let (service, gauge) = (Arc::clone(service), self.gauge.with_label_values(&[&**service]));
            Arc::new(Switch { service, state: AtomicU8::new(0), file: Mutex::default(), gauge })
        };
        Arc::clone(self.lock().entry(Arc::clone(service)).or_insert_with(new))
    }

    /// Returns the switch of a configured service.
    pub fn find(&self, service: &str) -> Option<Arc<Switch>> {
        self.lock().get(service).cloned()
    }

    /// An administrator switches the maintenance of a service on or off. While its file exists it stays on. `None` when
    /// there is no such service.
    pub fn set(&self, service: &str, on: bool) -> Option<MaintenanceState> {
        let switch = self.find(service)?;
        switch.change(BY_API, on, "an administrator");
        Some(switch.state())
    }

    /// `None` when there is no such service.
    pub fn state(&self, service: &str) -> Option<MaintenanceState> {
        self.find(service).map(|switch| switch.state())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Switch>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Switch {
    pub fn is_on(&self) -> bool {
        self.state.load(Ordering::Relaxed) != 0
    }

    pub fn state(&self) -> MaintenanceState {
        MaintenanceState::of(self.state.load(Ordering::Relaxed))
    }

    /// The configuration names this file, or none. Without an answer, a file that it named before keeps its state.
    fn follow(&self, path: Option<PathBuf>, exists: Option<bool>) {
        let is_same = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let is_same = *file == path;
            *file = path;
            is_same
        };
        if let Some(exists) = exists.or((!is_same).then_some(false)) {
            self.change(BY_FILE, exists, "its file");
        }
    }

    /// The file was looked for. A look at a file that the configuration does not name any more counts for nothing.
    pub fn looked(&self, path: &Path, exists: bool) {
        let is_followed = self.file.lock().unwrap_or_else(PoisonError::into_inner).as_deref() == Some(path);
        if is_followed {
            self.change(BY_FILE, exists, "its file");
        }
    }

    fn change(&self, bit: u8, on: bool, by: &str) {
        let before = match on {
            true => self.state.fetch_or(bit, Ordering::Relaxed),
            false => self.state.fetch_and(!bit, Ordering::Relaxed),
        };
        let after = if on { before | bit } else { before & !bit };
        self.gauge.set(i64::from(after != 0));
        if before != after {
            let (service, switched, state) = (&self.service, if on { "on" } else { "off" }, state_text(after));
            log::warn!("maintenance: switched {switched} by {by} service={service} maintenance={state}");
        }
    }
}

const fn state_text(bits: u8) -> &'static str {
    if bits == 0 { "off" } else { "on" }
}

/// Whether a maintenance file exists; `None` where the file system does not say. May block.
pub fn exists(path: &Path) -> Option<bool> {
    path.try_exists().ok()
}

impl Found {
    /// May block.
    fn at(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        Self { exists: exists(path), has_folder: folder.is_none_or(Path::is_dir) }
    }
}

impl FirstLook {
    /// Looks for all files at once, as each may be on a file system that does not answer.
    pub fn at(config: &Config, threads: &BlockingThreads) -> Self {
        let file = |service: &crate::config::Service| service.maintenance.as_ref().and_then(|it| it.file.clone());
        Self::of(config.services.iter().map(|service| (Arc::clone(&service.name), file(service))), threads)
    }

    fn of(services: impl Iterator<Item = (Arc<str>, Option<PathBuf>)>, threads: &BlockingThreads) -> Self {
        let services: Vec<_> = services.collect();
        let files = services.iter().filter_map(|(_, file)| file.clone());
        let found = threads.look(files.map(|file| (file.clone(), move || Found::at(&file))));
        let found_of = |file: &Option<PathBuf>| found.get(file.as_ref()?).copied();
        Self(services.into_iter().map(|(name, file)| (name, file.clone(), found_of(&file))).collect())
    }

    /// Adds a warning for each file that nothing could make, or whose file system does not answer. A file that is not there
    /// is none: it switches maintenance on.
    pub fn warn(&self, faults: &mut Faults) {
        for (service, file, found) in &self.0 {
            let Some(file) = file else { continue };
            let (what, write) = match found {
                Some(found) if found.has_folder => continue,
                Some(_) => {
                    let folder = file.parent().unwrap_or(file).display();
                    let what = format!("there is no folder {folder} that the file could be made in");
                    (what, "make the folder, or name a file in another one")
                }
                None => ("its file system does not answer".into(), "name a file on a disk of this machine"),
            };
            faults.warn(format!("services.{service}.maintenance.file"), what, write);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    fn gauge() -> IntGaugeVec {
        IntGaugeVec::new(Opts::new("maintenance", "-"), &["service"]).unwrap()
    }

    fn state(switches: &MaintenanceSwitches, service: &str) -> Option<(bool, bool)> {
        switches.state(service).map(|state| (state.by_file, state.by_api))
    }

    fn value(gauge: &IntGaugeVec, service: &str) -> Option<f64> {
        use prometheus::core::Collector;
        let families = gauge.collect();
        let metrics = families[0].get_metric();
        let of = metrics.iter().find(|metric| metric.get_label()[0].value() == service)?;
        Some(of.get_gauge().get_value())
    }

    fn configure(switches: &MaintenanceSwitches, services: &[(&str, Option<&Path>)]) {
        let services = services.iter().map(|(name, file)| (Arc::from(*name), file.map(Path::to_owned)));
        switches.configure(FirstLook::of(services, &BlockingThreads::new().unwrap()));
    }

    #[test]
    fn a_file_and_an_administrator_each_switch_it_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("away");
        let gauge = gauge();
        let switches = MaintenanceSwitches::new(gauge.clone());
        configure(&switches, &[("a", Some(&path)), ("b", None)]);
        assert_eq!((state(&switches, "a"), state(&switches, "b")), (Some((false, false)), Some((false, false))));
        assert_eq!((state(&switches, "c"), switches.set("c", true)), (None, None));
        assert_eq!((value(&gauge, "a"), value(&gauge, "b"), value(&gauge, "c")), (Some(0.0), Some(0.0), None));
        let a = switches.find("a").unwrap();
        a.looked(&path, true);
        a.looked(Path::new("/another"), false);
        assert_eq!((state(&switches, "a"), a.is_on(), value(&gauge, "a")), (Some((true, false)), true, Some(1.0)));
        switches.set("a", true);
        a.looked(&path, false);
        assert_eq!((state(&switches, "a"), a.is_on(), value(&gauge, "a")), (Some((false, true)), true, Some(1.0)));
        switches.set("a", false);
        assert_eq!((state(&switches, "a"), a.is_on(), value(&gauge, "a")), (Some((false, false)), false, Some(0.0)));
    }

    #[test]
    fn a_reload_keeps_what_an_administrator_has_set_and_looks_for_the_file_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("away"), folder.path().join("other"));
        std::fs::write(&path, "").unwrap();
        let gauge = gauge();
        let switches = MaintenanceSwitches::new(gauge.clone());
        configure(&switches, &[("a", Some(&path)), ("b", None)]);
        switches.set("b", true);
        assert_eq!((state(&switches, "a"), state(&switches, "b")), (Some((true, false)), Some((false, true))));
        let kept = switches.find("b").unwrap();
        configure(&switches, &[("a", Some(&other)), ("b", Some(&path))]);
        assert_eq!((state(&switches, "a"), state(&switches, "b")), (Some((false, false)), Some((true, true))));
        assert!(Arc::ptr_eq(&kept, &switches.find("b").unwrap()), "a request under way sees it too");
        configure(&switches, &[("a", None)]);
        assert_eq!((state(&switches, "a"), state(&switches, "b")), (Some((false, false)), None));
        assert_eq!(value(&gauge, "b"), None);
        configure(&switches, &[("a", None), ("b", None)]);
        assert_eq!(state(&switches, "b"), Some((false, false)), "a service of that name is a new one");
        // A file system that does not answer.
        configure(&switches, &[("a", Some(&path))]);
        switches.configure(FirstLook(vec![("a".into(), Some(path), None)]));
        assert_eq!(state(&switches, "a"), Some((true, false)));
    }

    #[test]
    fn a_file_whose_file_system_does_not_answer_is_a_warning_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let threads = BlockingThreads::new().unwrap();
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(0);
        let (hangs, good, lost) = (PathBuf::from("/hangs/x"), folder.path().join("x"), folder.path().join("none/x"));
        assert!(threads.look(std::iter::once((hangs.clone(), move || wait.recv().is_ok()))).is_empty());
        std::fs::write(&good, "").unwrap();
        let services =
            [("a", Some(hangs)), ("b", Some(good.clone())), ("c", Some(good)), ("d", Some(lost)), ("e", None)];
        let services = services.into_iter().map(|(name, file)| (Arc::from(name), file));
        let look = FirstLook::of(services, &threads);
        let mut faults = Faults::new(Path::new("edge.yaml"), "");
        look.warn(&mut faults);
        let texts: Vec<String> = faults.warnings().iter().map(ToString::to_string).collect();
        assert!(faults.is_empty() && texts.len() == 2, "{faults} {texts:?}");
        assert!(
            texts[0].contains("services.a.maintenance.file: warning: its file system does not answer"),
            "{texts:?}"
        );
        assert!(texts[1].contains("services.d.maintenance.file: warning: there is no folder"), "{texts:?}");
        let switches = MaintenanceSwitches::new(gauge());
        switches.configure(look);
        let on = |service: &str| switches.state(service).unwrap().by_file;
        assert_eq!(["a", "b", "c", "d", "e"].map(on), [false, true, true, false, false]);
        drop(release);
    }
}
