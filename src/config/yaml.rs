//! YAML text to a tree of scalars that know where they stand.

use std::fmt;

use serde::Deserialize;
use serde::Deserializer;
use serde::de;
use serde_saphyr::Spanned;

/// A YAML node; scalars keep their text.
#[derive(Debug)]
pub(super) enum Node {
    Scalar(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

/// Parses one document; an empty one is an empty map.
///
/// # Errors
/// `line:column: what is wrong`.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    let is_empty = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    if is_empty {
        return Ok(Node::Map(Vec::new()));
    }
    serde_saphyr::from_str(text).map_err(|error| describe(&error))
}

/// One line with its place in front.
fn describe(error: &serde_saphyr::Error) -> String {
    let spot = error.location().map(|spot| (spot.line(), spot.column()));
    let (line, column) = spot.unwrap_or((1, 1));
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error.without_snippet() {
        let key = key.as_deref().unwrap_or_default();
        return format!("{line}:{column}: key `{key}` stands here for the second time");
    }
    let text = error.without_snippet().to_string();
    let place = format!(" at line {line}, column {column}");
    let first = text.lines().next().unwrap_or_default();
    format!("{line}:{column}: {}", first.replace(&place, ""))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> de::Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(String::new()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
