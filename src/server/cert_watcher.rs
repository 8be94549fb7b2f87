//! The task that watches certificate files: changed certificates are loaded without a signal, or refused as a whole.
//!
//! A program that renews certificates writes two files, and not both at once. A certificate and a key that do not match
//! yet are refused, and read again when the files change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::digest::{Context, SHA256};

use crate::clock::{Clock, UnixTime};
use crate::config::{self, Config, Faults};
use crate::metrics::Metrics;
use crate::snapshot;
use crate::tls::expiry::{ExpiryLevel, days_left};
use crate::tls::{self, Certificates};

pub struct CertWatcher {
    /// Named in messages.
    pub file: PathBuf,
    /// The current configuration: a reload may name other files.
    pub config: Arc<ArcSwap<Config>>,
    pub tls: tls::TlsState,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// A digest of all certificate files, to recognise a change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileDigest(Vec<u8>);

impl CertWatcher {
    /// Never ends.
    #[expect(clippy::disallowed_methods, reason = "one short look every few seconds, and no request waits for it")]
    pub async fn watch(self) {
        let watcher = Arc::new(self);
        let (mut served, mut refused) = (None, None);
        let mut warned = BTreeMap::new();
        let mut config = watcher.config.load_full();
        loop {
            let before = std::mem::replace(&mut config, watcher.config.load_full());
            if !Arc::ptr_eq(&before, &config) {
                // A reload may have read its files before the last look, and have been served after it.
                (served, refused) = (None, None);
            }
            let looked = {
                let (watcher, config) = (Arc::clone(&watcher), Arc::clone(&config));
                let known = [served.clone(), refused.clone()];
                // The files may be on a slow disk.
                tokio::task::spawn_blocking(move || watcher.look(&config, &known)).await
            };
            match looked {
                // A reload came in between, and has read the current files.
                Ok(LookResult::Good(..)) if !Arc::ptr_eq(&config, &watcher.config.load()) => {}
                Ok(LookResult::Good(digest, certificates)) => {
                    // The first look finds the certificates that are served already; it makes sure that nothing changed
                    // in between.
                    watcher.apply(certificates, served.is_some() || refused.is_some());
                    served = Some(digest);
                }
                Ok(LookResult::Bad(digest)) => refused = Some(digest),
                // Or a panic, which said so itself.
                Ok(LookResult::Unchanged) | Err(_) => {}
            }
            watcher.warn(&mut warned);
            tokio::time::sleep(config.tls.refresh).await;
        }
    }

    fn look(&self, config: &Config, known: &[Option<FileDigest>]) -> LookResult {
        let digest = FileDigest::of(&config.tls);
        if known.iter().flatten().any(|known| *known == digest) {
            return LookResult::Unchanged;
        }
        let mut faults = Faults::new(&self.file, "");
        let certificates = Certificates::load(&config.tls, self.clock.now(), &self.tls.certificates(), &mut faults);
        if faults.is_empty() {
            snapshot::check_cover(config, &certificates, &mut faults);
        }
        if faults.is_empty() {
            return LookResult::Good(digest, certificates);
        }
        self.count("refused");
        log::error!("certificate files refused, the previous certificates stay in use:\n{faults}");
        LookResult::Bad(digest)
    }

    fn apply(&self, certificates: Certificates, is_renewal: bool) {
        certificates.publish(&self.metrics);
        self.tls.renew_certificates(certificates);
        if is_renewal {
            self.count("ok");
            log::info!("certificates renewed");
        }
    }

    fn count(&self, result: &str) {
        self.metrics.operation.certificate_reloads.with_label_values(&[result]).inc();
    }

    /// Warns once of each certificate when a month is left, once when a week is left, and once when it has expired.
    fn warn(&self, warned: &mut BTreeMap<(String, UnixTime), ExpiryLevel>) {
        let now = self.clock.now();
        let certificates = self.tls.certificates();
        for (name, ends) in certificates.ends() {
            let level = ExpiryLevel::of(*ends, now);
            let warned_level = warned.entry((name.clone(), *ends)).or_insert(ExpiryLevel::Far);
            if level <= *warned_level {
                continue;
            }
            *warned_level = level;
            let (at, days) = (ends.rfc3339(), days_left(*ends, now));
            match level {
                ExpiryLevel::Ended => log::error!("the certificate of {name} has ended, at {at}: renew it"),
                _ => log::warn!("the certificate of {name} ends in {days} days, at {at}: renew it"),
            }
        }
        let served: BTreeSet<_> = certificates.ends().iter().collect();
        warned.retain(|key, _| served.contains(&key));
    }
}

/// The result of reading the files.
enum LookResult {
    /// Nothing has changed.
    Unchanged,
    Good(FileDigest, Certificates),
    /// The faults have been logged.
    Bad(FileDigest),
}

impl FileDigest {
    fn of(tls: &config::Tls) -> Self {
        let mut context = Context::new(&SHA256);
        for path in tls.certificates.iter().flat_map(|files| [&files.certificate, &files.key]) {
            // A file that cannot be read is another state than any that can.
            let bytes = std::fs::read(path).map(zeroize::Zeroizing::new);
            let length = bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64);
            context.update(&length.to_be_bytes());
            context.update(bytes.as_ref().map_or(&[][..], |bytes| bytes));
        }
        Self(context.finish().as_ref().to_vec())
    }
}
