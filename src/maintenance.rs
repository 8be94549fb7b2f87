//! Services in maintenance: switched on by a file that exists, or by an administrator.
//!
//! `server` looks for the files and `admin` has the administrator's switch; `proxy` reads the state, which costs a request
//! one load of a number.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{IntGauge, IntGaugeVec};

/// For the first look at all files of a configuration. A file system that does not answer by then has no file.
const FIRST_LOOK: Duration = Duration::from_millis(500);

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

/// The services of a configuration, the file that switches each one's maintenance on, and whether it exists. `None` where
/// the file system has not answered.
pub struct FirstLook(Vec<(Arc<str>, Option<PathBuf>, Option<bool>)>);

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
        for (service, file, exists) in services {
            self.of(&service).follow(file, exists);
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

impl FirstLook {
    /// Looks for all files at once, each on a thread of its own, as each may be on a file system that does not answer.
    pub fn at(services: impl Iterator<Item = (Arc<str>, Option<PathBuf>)>) -> Self {
        let looks: Vec<_> = services.map(|(name, file)| (name, file.clone(), file.and_then(look))).collect();
        let until = Instant::now() + FIRST_LOOK;
        let answer = |look: Receiver<Option<bool>>| {
            look.recv_timeout(until.saturating_duration_since(Instant::now())).ok().flatten()
        };
        Self(looks.into_iter().map(|(name, file, look)| (name, file, look.and_then(answer))).collect())
    }
}

/// `None` where there is no thread for it.
fn look(path: PathBuf) -> Option<Receiver<Option<bool>>> {
    let (sender, receiver) = sync_channel(1);
    // An error means that the answer comes too late.
    let look = move || sender.try_send(exists(&path)).unwrap_or_default();
    std::thread::Builder::new().name("edge-files".into()).spawn(look).ok()?;
    Some(receiver)
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
        switches.configure(FirstLook::at(services));
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
}
