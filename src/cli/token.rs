//! `token inspect`: prints what a token says, without judging whether it is valid. For debugging.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, output};
use crate::clock::{Clock, UnixTime};

/// Bytes; no header line carries more.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Args)]
pub struct TokenCommand {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Print header and claims as JSON. The signature is not checked.
    Inspect {
        /// The token, or `-` for standard input, which keeps it out of the shell's history.
        #[arg(default_value = "-")]
        token: String,
    },
}

impl TokenCommand {
    pub fn run(self) -> Result<(), Failure> {
        let Action::Inspect { token } = self.command;
        let token = if token == "-" { read_token()? } else { token };
        let inspected = inspect(token.trim(), Clock::default().now()).map_err(Failure::Failed)?;
        output::print(format_args!("{inspected:#}"))
    }
}

fn read_token() -> Result<String, Failure> {
    let mut token = String::new();
    std::io::stdin().take(MAX_BYTES).read_to_string(&mut token).map_err(Failure::because)?;
    Ok(token)
}

fn inspect(token: &str, now: UnixTime) -> Result<Value, String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _] = parts[..] else {
        return Err(format!("a token has three parts divided by dots, this has {}", parts.len()));
    };
    let header = decode("header", header)?;
    let claims = decode("claims", claims)?;
    let moment = |name: &str| claims.get(name).and_then(Value::as_u64).map(UnixTime::from_seconds);
    let state = match (moment("nbf"), moment("exp")) {
        (_, Some(end)) if end <= now => "expired",
        (Some(begin), _) if begin > now => "not yet valid",
        _ => "within its time",
    };
    let readable = |name: &str| moment(name).map(UnixTime::rfc3339);
    Ok(json!({
        "header": header,
        "claims": claims,
        "times": {"issued": readable("iat"), "valid_from": readable("nbf"), "expires": readable("exp"), "state": state},
        "signature": "not checked",
    }))
}

fn decode(what: &str, part: &str) -> Result<Value, String> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| format!("the {what} is not base64url: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("the {what} is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_with_readable_times_and_bad_ones_are_explained() {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.x", part(&json!({"alg": "HS256"})), part(&json!({"sub": "ada", "exp": 10})));
        let shown = inspect(&token, UnixTime::from_seconds(11)).unwrap();
        assert_eq!(shown["times"]["state"], "expired");
        assert_eq!(shown["times"]["expires"], "1970-01-01T00:00:10.000Z");
        assert!(inspect("a.b", UnixTime::from_seconds(0)).unwrap_err().contains("three parts"));
        assert!(inspect("!.b.c", UnixTime::from_seconds(0)).unwrap_err().contains("base64url"));
    }
}
