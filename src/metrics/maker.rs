//! Makes a metric and registers it, so that the lists of metrics read as tables. It keeps what it has registered, for the
//! reference.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A metric as it is registered, without the prefix of its name.
#[derive(Clone, Debug)]
pub struct Description {
    pub name: String,
    /// As Prometheus calls it: `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

pub struct Maker<'a> {
    registry: &'a Registry,
    descriptions: RefCell<Vec<Description>>,
}

impl<'a> Maker<'a> {
    pub fn new(registry: &'a Registry) -> Self {
        Self { registry, descriptions: RefCell::default() }
    }

    /// Returns what was registered, in its order.
    pub fn into_descriptions(self) -> Vec<Description> {
        self.descriptions.into_inner()
    }

    /// Registers a metric that is there already.
    pub fn registered<M: Collector + Clone + 'static>(&self, kind: &'static str, metric: M) -> Result<M, Error> {
        self.registry.register(Box::new(metric.clone()))?;
        self.descriptions.borrow_mut().extend(metric.desc().into_iter().map(|described| Description {
            name: described.fq_name.clone(),
            kind,
            labels: described.variable_labels.clone(),
            help: described.help.clone(),
        }));
        Ok(metric)
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.registered("counter", IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.registered("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub fn int_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.registered("gauge", IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.registered("gauge", IntGauge::new(name, help)?)
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.registered("histogram", Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    pub fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> Result<HistogramVec, Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered("histogram", HistogramVec::new(opts, labels)?)
    }
}
