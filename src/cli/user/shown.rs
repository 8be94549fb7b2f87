//! How the commands print a user.

use serde_json::{Value, json};

use crate::users::User;

pub fn shown(user: &User, json: bool) -> String {
    if json {
        return as_json(user).to_string();
    }
    let state = if user.disabled { "  (disabled)" } else { "" };
    let parts = [
        ("id", user.id.as_str().to_owned()),
        ("email", user.email.clone().unwrap_or_else(|| "-".into())),
        ("services", user.services.join(", ")),
        ("roles", user.roles.join(", ")),
        ("created", user.created.rfc3339()),
    ];
    let lines: Vec<String> = parts.iter().map(|(what, value)| format!("  {what:<9} {value}")).collect();
    format!("{}{state}\n{}", user.name.as_str(), lines.join("\n"))
}

pub fn as_json(user: &User) -> Value {
    json!({
        "id": user.id.as_str(),
        "name": user.name.as_str(),
        "email": user.email,
        "services": user.services,
        "roles": user.roles,
        "disabled": user.disabled,
        "created": user.created.rfc3339(),
    })
}
