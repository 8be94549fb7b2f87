//! The document before it is read into its shapes: keys are texts, and tags go where it is printed. Called by `config`
//! alone.

use serde_yaml::{Mapping, Number, Value};

/// Takes a whole number as a key for its text, as a status or the name of a service may be written with quotes or without.
/// Returns `None` when a key is then there twice.
pub fn with_text_keys(value: Value) -> Option<Value> {
    Some(match value {
        Value::Mapping(mapping) => {
            let mut texts = Mapping::with_capacity(mapping.len());
            for (key, value) in mapping {
                if texts.insert(text_key(key), with_text_keys(value)?).is_some() {
                    return None;
                }
            }
            Value::Mapping(texts)
        }
        Value::Sequence(list) => Value::Sequence(list.into_iter().map(with_text_keys).collect::<Option<_>>()?),
        Value::Tagged(mut tagged) => {
            tagged.value = with_text_keys(tagged.value)?;
            Value::Tagged(tagged)
        }
        scalar => scalar,
    })
}

fn text_key(key: Value) -> Value {
    let is_whole = |number: &Number| number.is_i64() || number.is_u64();
    match key {
        Value::Number(number) if is_whole(&number) => number.to_string().into(),
        key => key,
    }
}

/// Removes every tag, which means nothing in a configuration: what is below one is like anything else.
pub fn untagged(value: Value) -> Value {
    match value {
        Value::Tagged(tagged) => untagged(tagged.value),
        Value::Mapping(mapping) => {
            Value::Mapping(mapping.into_iter().map(|(key, value)| (untagged(key), untagged(value))).collect())
        }
        Value::Sequence(list) => Value::Sequence(list.into_iter().map(untagged).collect()),
        scalar => scalar,
    }
}
