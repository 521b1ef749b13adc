//! The JSON schema of the files, for editors. Made from the table of keys.
//!
//! It knows the shape of values, not what only the whole tells: that a dependency exists, that one
//! of `command` and `shell` is there in the end, after merges.

use super::keys::{DEPENDENCY, FILE, Key, Kind, SECTIONS, Section};
use serde_json::{Map, Value, json};

/// The schema of the main file and of files with processes (draft 2020-12).
#[must_use]
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| *name != "file") {
        definitions.insert((*name).to_owned(), object(section));
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Provost configuration",
        "description": "The main file and the files with processes.",
        "$defs": definitions,
    });
    if let (Value::Object(schema), Value::Object(file)) = (&mut schema, object(&FILE)) {
        schema.extend(file);
        // Templates for merges.
        schema.insert("patternProperties".into(), json!({ "^x-": {} }));
    }
    schema
}

fn object(section: &'static Section) -> Value {
    let mut properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    properties.insert("<<".into(), json!({ "type": ["object", "array"] }));
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn property(key: &'static Key) -> Value {
    let mut value = value(&key.kind);
    let doc = match (&key.kind, key.default) {
        (Kind::Later, _) => format!("{} Not available in this version.", key.doc),
        (_, "") => key.doc.to_owned(),
        (_, default) => format!("{} Default: {default}.", key.doc),
    };
    if let Value::Object(value) = &mut value {
        value.insert("description".into(), doc.into());
    }
    value
}

fn value(kind: &'static Kind) -> Value {
    match kind {
        Kind::Bool => or_null(&["boolean"], json!({})),
        Kind::Text => or_null(SCALAR, json!({})),
        Kind::Texts => or_null(&["array"], json!({ "items": { "type": SCALAR } })),
        Kind::TextOrTexts => {
            let types = [SCALAR, &["array"]].concat();
            or_null(&types, json!({ "items": { "type": SCALAR } }))
        }
        Kind::Duration { .. } => {
            let pattern = r"^(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$";
            let types = ["integer", "string"];
            or_null(&types, json!({ "minimum": 0, "minLength": 2, "pattern": pattern }))
        }
        Kind::Size { .. } => {
            or_null(&["string", "integer"], json!({ "minimum": 0, "pattern": "^[0-9]+[KkMGT]?$" }))
        }
        Kind::Integer { min, max } => {
            or_null(&["integer"], json!({ "minimum": min, "maximum": max }))
        }
        Kind::Integers { min, max } => {
            let items = json!({ "type": "integer", "minimum": min, "maximum": max });
            or_null(&["array"], json!({ "items": items }))
        }
        Kind::Number { min, max } => {
            or_null(&["number"], json!({ "minimum": min, "maximum": max }))
        }
        Kind::Octal => or_null(&["string", "integer"], json!({ "pattern": "^[0-7]{1,4}$" })),
        Kind::Words { words, .. } => words_or_null(words),
        Kind::Signal => {
            let bounds = json!({ "pattern": "^(SIG)?[A-Z]", "minimum": 1, "maximum": 64 });
            or_null(&["string", "integer"], bounds)
        }
        Kind::Variables => {
            let values = json!({ "type": SCALAR });
            let names = json!({ "pattern": "^([A-Za-z_][A-Za-z0-9_]*|<<)$" });
            let merge = json!({ "type": ["object", "array"] });
            or_null(
                &["object"],
                json!({
                    "properties": { "<<": merge },
                    "additionalProperties": values,
                    "propertyNames": names,
                }),
            )
        }
        Kind::Properties => properties(),
        Kind::Dependencies => dependencies(),
        Kind::Sockets => json!({
            "type": ["object", "null"],
            "additionalProperties": {
                "anyOf": [{ "type": "string" }, { "$ref": "#/$defs/sockets" }]
            },
        }),
        Kind::Section(section) => json!({
            "anyOf": [{ "$ref": format!("#/$defs/{}", section.path) }, { "type": "null" }]
        }),
        Kind::Processes => json!({
            "type": "object",
            "additionalProperties": { "$ref": "#/$defs/process" },
            "propertyNames": { "pattern": "^([A-Za-z0-9][A-Za-z0-9_.-]{0,62}|<<)$" },
        }),
        Kind::Later => json!({ "type": "null" }),
    }
}

/// What a text may look like to a reader of YAML: it keeps its source text here.
const SCALAR: &[&str] = &["string", "number", "boolean"];

/// An explicit null asks for the default.
fn or_null(types: &[&str], mut rest: Value) -> Value {
    let types: Vec<&str> = types.iter().copied().chain(["null"]).collect();
    if let Value::Object(rest) = &mut rest {
        rest.insert("type".into(), types.into());
    }
    rest
}

fn words_or_null(words: &'static [&'static str]) -> Value {
    let mut all: Vec<Value> = words.iter().map(|word| (*word).into()).collect();
    if words.contains(&"no") {
        all.push(false.into());
    }
    all.push(Value::Null);
    json!({ "enum": all })
}

fn properties() -> Value {
    use crate::core::unit::{Form, PROPERTIES};
    let listed = [SCALAR, &["array"]].concat();
    let value = |form: Form| match form {
        Form::Bool => json!({ "type": SCALAR }),
        Form::Words(words) if !words.contains(&"yes") => json!({ "enum": words }),
        Form::Numbers(words) => {
            json!({ "enum": words.iter().map(|(word, _)| word).collect::<Vec<_>>() })
        }
        Form::Integer { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        Form::Weight => json!({ "type": "integer", "minimum": 1, "maximum": 10_000 }),
        form if form.is_list() || form == Form::Devices => {
            json!({ "type": listed, "items": { "type": SCALAR } })
        }
        _ => json!({ "type": SCALAR }),
    };
    let all = PROPERTIES.iter().map(|property| {
        let known = json!({ "anyOf": [value(property.form), { "type": "null" }] });
        (property.name.to_owned(), known)
    });
    let mut all: Map<String, Value> = all.collect();
    all.insert("<<".into(), json!({ "type": ["object", "array"] }));
    or_null(&["object"], json!({ "properties": all, "additionalProperties": false }))
}

fn dependencies() -> Value {
    let condition = DEPENDENCY.key("condition").map(|key| value(&key.kind));
    json!({
        "anyOf": [
            { "type": "array", "items": { "type": SCALAR } },
            {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [condition, { "$ref": "#/$defs/dependsOn" }]
                }
            },
            { "type": "null" },
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_it_and_every_reference_resolves() {
        let schema = json_schema();
        for (name, section) in SECTIONS {
            let object = match *name {
                "file" => &schema,
                name => &schema["$defs"][name],
            };
            for key in section.keys {
                let property = &object["properties"][key.name];
                assert!(property["description"].is_string(), "{name}.{}", key.name);
            }
            assert_eq!(object["additionalProperties"], false);
        }
        let text = schema.to_string();
        for (n, _) in text.match_indices("#/$defs/") {
            let name = text[n + 8..].split('"').next().unwrap();
            assert!(schema["$defs"][name].is_object(), "{name}");
        }
        assert_eq!(schema["$defs"]["process"]["properties"]["schedule"]["type"], "null");
        let condition = &schema["$defs"]["restartPolicy"]["properties"]["condition"]["enum"];
        assert!(condition.as_array().unwrap().contains(&Value::Bool(false)));
    }
}
