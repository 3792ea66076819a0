//! Values as Python prints them: `str` and `repr`.

use crate::chat::{arguments::refusal, objects};
use minijinja::{Error, Value, value::ValueKind};
use std::fmt::Write;

/// How deep lists and maps may lie within each other where they are printed.
pub const DEEPEST: usize = 100;

/// What Python's `str` gives.
///
/// # Errors
/// Where lists and maps lie within each other too deeply.
pub fn printed(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut out = String::new();
            represent(&mut out, value, 0)?;
            Ok(out)
        }
    }
}

/// What Python's `repr` gives.
///
/// # Errors
/// Where lists and maps lie within each other too deeply.
pub fn represented(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    represent(&mut out, value, 0)?;
    Ok(out)
}

/// A float's shortest digits that read back as it, with an exponent where Python writes one.
pub fn float(value: f64) -> String {
    if !value.is_finite() {
        let name = if value.is_nan() { "nan" } else { "inf" };
        return if value.is_sign_negative() && !value.is_nan() {
            format!("-{name}")
        } else {
            name.to_owned()
        };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{value:?}"),
    }
}

/// What Python's `str.isprintable` says of a character, but for those that Unicode has not assigned.
pub fn is_printable(c: char) -> bool {
    let is_separator = c.is_whitespace() && c != ' ';
    let is_format = matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{8e2}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}');
    let is_private = matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..);
    !(c.is_control() || is_separator || is_format || is_private)
}

fn represent(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(refusal("a value is nested too deeply to be printed"));
    }
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::String => represent_text(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => out.push_str(&float(as_float(value))),
        ValueKind::Seq | ValueKind::Iterable if is_list(value) => {
            let (open, close) = if value.is_tuple() { ("(", ")") } else { ("[", "]") };
            out.push_str(open);
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                represent(out, &item, depth + 1)?;
            }
            out.push_str(if value.is_tuple() && value.len() == Some(1) { "," } else { "" });
            out.push_str(close);
        }
        ValueKind::Map => {
            let is_namespace = objects::is_namespace(value);
            out.push_str(if is_namespace { "<Namespace {" } else { "{" });
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                represent(out, &key, depth + 1)?;
                out.push_str(": ");
                represent(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push_str(if is_namespace { "}>" } else { "}" });
        }
        _ => write!(out, "{value}").map_err(|_| refusal("a value cannot be printed"))?,
    }
    Ok(())
}

/// Whether a value is a list or a tuple. What slices and sums of lists give is iterable and has a length.
pub fn is_list(value: &Value) -> bool {
    !objects::is_ours(value) && value.len().is_some()
}

fn as_float(value: &Value) -> f64 {
    f64::try_from(value.clone()).unwrap_or(f64::NAN)
}

fn represent_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => out.extend(['\\', c]),
            _ if is_printable(c) => out.push(c),
            _ => out.push_str(&match u32::from(c) {
                code @ ..0x100 => format!("\\x{code:02x}"),
                code @ ..0x10000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    out.push(quote);
}
