//! The units that operators write: durations (`250ms`, `30s`, `15m`, `12h`), sizes (`32KiB`, `50MiB`) and
//! rates (`5 per 15m`). Parsed by serde while the document is read.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A length of time, over zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

/// A length of time, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOrZero(pub Duration);

/// Statuses of responses: one, or all from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub RangeInclusive<u16>);

/// A number of bytes, over zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

/// So many within so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u64,
    pub per: Duration,
}

fn parse_time(text: &str) -> Option<Time> {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let time = humantime::parse_duration(text).ok().filter(|d| digits && !d.is_zero());
    time.map(Time)
}

fn parse_time_or_zero(text: &str) -> Option<TimeOrZero> {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    humantime::parse_duration(text).ok().filter(|_| digits).map(TimeOrZero)
}

fn parse_statuses(text: &str) -> Option<Statuses> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.parse().ok().filter(|_| text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()));
    Some(Statuses(status(first.trim())?..=status(last.trim())?))
}

fn parse_size(text: &str) -> Option<Size> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit: usize = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let bytes = number.parse::<usize>().ok()?.checked_mul(unit)?;
    (bytes > 0).then_some(Size(bytes))
}

fn parse_rate(text: &str) -> Option<Rate> {
    let (count, per) = text.split_once(" per ")?;
    let count = count.trim().parse().ok().filter(|count| *count > 0)?;
    Some(Rate { count, per: parse_time(per.trim())?.0 })
}

/// Reads a string with `parse`, and says what was expected when it is something else.
macro_rules! from_text {
    ($type:ty, $parse:path, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
                    }

                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }
    };
}

from_text!(Time, parse_time, "a duration such as 250ms, 30s, 15m or 12h");
from_text!(TimeOrZero, parse_time_or_zero, "a duration such as 250ms, 30s or 0s");
from_text!(Statuses, parse_statuses, "a status such as 200, or a range such as 200-399");
from_text!(Size, parse_size, "a size such as 32KiB or 50MiB");
from_text!(Rate, parse_rate, "a rate such as `5 per 15m`");

/// Reads a word that may be `off`, for which YAML 1.1 tools write `false`. `expected` says which words there are.
pub fn word_or_off<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    of_word: fn(&str) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    struct Word<T> {
        expected: &'static str,
        of_word: fn(&str) -> Option<T>,
    }
    impl<T> Visitor<'_> for Word<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.of_word)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
        }

        fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<T, E> {
            let word = if is_on { None } else { (self.of_word)("off") };
            word.ok_or_else(|| E::invalid_value(de::Unexpected::Bool(is_on), &self))
        }
    }
    deserializer.deserialize_any(Word { expected, of_word })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(parse_time("250ms"), Some(Time(Duration::from_millis(250))));
        assert_eq!(parse_time("12h"), Some(Time(Duration::from_secs(12 * 3600))));
        for bad in ["", "30", "0s", "-1s", "1 fortnight", "∞"] {
            assert_eq!(parse_time(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_duration_may_be_none_where_that_is_said() {
        assert_eq!(parse_time_or_zero("0s"), Some(TimeOrZero(Duration::ZERO)));
        assert_eq!(parse_time_or_zero("30s"), Some(TimeOrZero(Duration::from_secs(30))));
        for bad in ["", "30", "-1s", "none"] {
            assert_eq!(parse_time_or_zero(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn statuses_are_one_or_a_range() {
        assert_eq!(parse_statuses("200"), Some(Statuses(200..=200)));
        assert_eq!(parse_statuses("200-399"), Some(Statuses(200..=399)));
        assert_eq!(parse_statuses("200 - 204"), Some(Statuses(200..=204)));
        for bad in ["", "20", "2xx", "200-", "-200", "200-300-400", "+20", "0200", "200,204"] {
            assert_eq!(parse_statuses(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("32KiB"), Some(Size(32 * 1024)));
        assert_eq!(parse_size("50 MiB"), Some(Size(50 << 20)));
        for bad in ["", "0", "KiB", "1kb", "1MB", "99999999999999999999GiB", "-1"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_rate_reads_as_a_sentence() {
        assert_eq!(parse_rate("5 per 15m"), Some(Rate { count: 5, per: Duration::from_secs(900) }));
        for bad in ["5", "0 per 1m", "5 / 15m", "five per 15m", "5 per 15"] {
            assert_eq!(parse_rate(bad), None, "{bad:?}");
        }
    }
}
