//! Schemas of values with a spelling of their own: durations, sizes, rates, and what is sealed while it is read.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::super::file::ErrorStatus;
use super::super::reading::Sealed;
use super::super::units::{Rate, Size, Statuses, Time, TimeOrZero};

/// A number with its unit, as `units` reads it.
macro_rules! duration {
    () => {
        r"[0-9]+(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y)"
    };
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number with its unit, over zero: `250ms`, `30s`, `15m`, `12h`, `30days`.",
            "pattern": concat!("^", duration!(), r"(\s*", duration!(), r")*\s*$"),
            "examples": ["250ms", "30s", "15m", "12h"],
        })
    }
}

impl JsonSchema for TimeOrZero {
    fn schema_name() -> Cow<'static, str> {
        "TimeOrZero".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number with its unit, or none: `0s`, `250ms`, `30s`.",
            "pattern": concat!("^", duration!(), r"(\s*", duration!(), r")*\s*$"),
            "examples": ["0s", "30s"],
        })
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A status, or all from one to another: `200`, `200-399`.",
            "oneOf": [
                {"type": "string", "pattern": r"^\s*[0-9]{3}\s*(-\s*[0-9]{3}\s*)?$"},
                {"type": "integer", "minimum": 100, "maximum": 999},
            ],
            "examples": ["200-399"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number of bytes, over zero, in powers of 1024: `512`, `32KiB`, `50MiB`, `2GiB`.",
            "oneOf": [
                {"type": "string", "pattern": r"^0*[1-9][0-9]*\s*(B|KiB|MiB|GiB)?\s*$"},
                {"type": "integer", "minimum": 1},
            ],
            "examples": ["32KiB", "50MiB"],
        })
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number within a duration: `5 per 15m`.",
            "pattern": concat!(r"^\s*0*[1-9][0-9]*\s* per \s*", duration!(), r"(\s*", duration!(), r")*\s*$"),
            "examples": ["5 per 15m"],
        })
    }
}

/// A key of a mapping, which may be written as a number.
impl JsonSchema for ErrorStatus {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ErrorStatus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[45][0-9][0-9]$"})
    }
}

/// A seal is about messages; the document has what is inside of it.
impl<T: JsonSchema> JsonSchema for Sealed<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}
