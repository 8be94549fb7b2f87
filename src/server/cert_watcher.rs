//! The task that looks at certificate files: what has changed is taken up, or refused whole, without a signal.
//!
//! A program that renews certificates writes two files, and is not done with both at once; what does not fit together
//! yet is refused, and looked at again when it has changed.

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

pub struct Renewal {
    /// For messages.
    pub file: PathBuf,
    /// Of the day: a reload may name other files.
    pub config: Arc<ArcSwap<Config>>,
    pub tls: tls::TlsState,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
}

/// What the files hold, as far as two states of them have to be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Print(Vec<u8>);

impl Renewal {
    /// Never ends.
    #[expect(clippy::disallowed_methods, reason = "one short look every few seconds, and no request waits for it")]
    pub async fn watch(self) {
        let renewal = Arc::new(self);
        let (mut served, mut refused) = (None, None);
        let mut told = BTreeMap::new();
        let mut config = renewal.config.load_full();
        loop {
            let before = std::mem::replace(&mut config, renewal.config.load_full());
            if !Arc::ptr_eq(&before, &config) {
                // A reload may have read its files before the last look, and have been served after it.
                (served, refused) = (None, None);
            }
            let looked = {
                let (renewal, config) = (Arc::clone(&renewal), Arc::clone(&config));
                let known = [served.clone(), refused.clone()];
                // Files may lie on a disk that is slow.
                tokio::task::spawn_blocking(move || renewal.look(&config, &known)).await
            };
            match looked {
                // A reload came in between, and has read the files of the day.
                Ok(Found::Good(..)) if !Arc::ptr_eq(&config, &renewal.config.load()) => {}
                Ok(Found::Good(print, certificates)) => {
                    // The first look finds what is served already; it makes sure that nothing came in between.
                    renewal.take_up(certificates, served.is_some() || refused.is_some());
                    served = Some(print);
                }
                Ok(Found::Bad(print)) => refused = Some(print),
                // Or a panic, which said so itself.
                Ok(Found::Nothing) | Err(_) => {}
            }
            renewal.warn(&mut told);
            tokio::time::sleep(config.tls.refresh).await;
        }
    }

    fn look(&self, config: &Config, known: &[Option<Print>]) -> Found {
        let print = Print::of(&config.tls);
        if known.iter().flatten().any(|known| *known == print) {
            return Found::Nothing;
        }
        let mut faults = Faults::new(&self.file, "");
        let certificates = Certificates::load(&config.tls, self.clock.now(), &self.tls.certificates(), &mut faults);
        if faults.is_empty() {
            snapshot::check_cover(config, &certificates, &mut faults);
        }
        if faults.is_empty() {
            return Found::Good(print, certificates);
        }
        self.counted("refused");
        log::error!("certificate files refused, the certificates that were there stay:\n{faults}");
        Found::Bad(print)
    }

    fn take_up(&self, certificates: Certificates, is_news: bool) {
        certificates.publish(&self.metrics);
        self.tls.renew_certificates(certificates);
        if is_news {
            self.counted("ok");
            log::info!("certificates renewed");
        }
    }

    fn counted(&self, result: &str) {
        self.metrics.operation.certificate_reloads.with_label_values(&[result]).inc();
    }

    /// Says of each certificate once that a month is left, once that a week is, and once that it has ended.
    fn warn(&self, told: &mut BTreeMap<(String, UnixTime), ExpiryLevel>) {
        let now = self.clock.now();
        let certificates = self.tls.certificates();
        for (name, ends) in certificates.ends() {
            let nearness = ExpiryLevel::of(*ends, now);
            let so_far = told.entry((name.clone(), *ends)).or_insert(ExpiryLevel::Far);
            if nearness <= *so_far {
                continue;
            }
            *so_far = nearness;
            let (at, days) = (ends.rfc3339(), days_left(*ends, now));
            match nearness {
                ExpiryLevel::Ended => log::error!("the certificate of {name} has ended, at {at}: renew it"),
                _ => log::warn!("the certificate of {name} ends in {days} days, at {at}: renew it"),
            }
        }
        let served: BTreeSet<_> = certificates.ends().iter().collect();
        told.retain(|key, _| served.contains(&key));
    }
}

/// What a look at the files brought.
enum Found {
    /// What is known already.
    Nothing,
    Good(Print, Certificates),
    /// What was wrong has been told.
    Bad(Print),
}

impl Print {
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
