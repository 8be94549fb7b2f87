//! Makes a metric and registers it, so that the lists of metrics read as tables. It keeps what it has registered, for the
//! reference.

use std::cell::RefCell;
use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
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

/// In seconds, from a cached page to a slow report.
pub const BUCKETS: &[f64] =
    &[1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Removes every series that has these labels, whatever its other labels are.
pub fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, labels: &[(&str, &str)]) {
    for metric in family.collect().iter().flat_map(|family| family.get_metric()) {
        let of: HashMap<&str, &str> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        if labels.iter().all(|(name, value)| of.get(name) == Some(value)) {
            // An error means that it has gone meanwhile.
            family.remove(&of).ok();
        }
    }
}

/// Makes a series for each of `rows`, the values of a family's labels in their order, so that each is there with 0 before
/// anything has been counted: a rate can be made of its first change, and an alert knows that it exists.
pub fn preset<T: MetricVecBuilder>(family: &MetricVec<T>, rows: &[&[&str]]) {
    for row in rows {
        family.with_label_values(row);
    }
}

/// The same for a family with one label.
pub fn preset_values<T: MetricVecBuilder>(family: &MetricVec<T>, values: &[&str]) {
    for value in values {
        family.with_label_values(&[*value]);
    }
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

    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.registered("counter", IntCounter::new(name, help)?)
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
