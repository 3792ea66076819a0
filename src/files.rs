//! Reads a model's files. Names what lies in a file's place where it is not the file itself.

use crate::error::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// A file's bytes.
///
/// # Errors
/// Of the kind Model if it cannot be read, or is a stand-in ([`check`]).
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path)
        .map_err(|e| Error::model(format!("{} cannot be read: {e}", path.display())).because(e))?;
    check(&path.display().to_string(), &bytes)?;
    Ok(bytes)
}

/// A file's text.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| {
        let what =
            format!("{} is not a text in UTF-8: {}; download it again", path.display(), e.utf8_error());
        Error::model(what).because(e)
    })
}

/// The text of a JSON file, without the byte order mark that some editors put before it.
///
/// # Errors
/// As [`read_text`].
pub fn read_json_text(path: &Path) -> Result<String> {
    let mut text = read_text(path)?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

/// A file's JSON, as Python's `json` reads it: NaN and Infinity are allowed, and become texts.
///
/// # Errors
/// As [`read_text`], and if it is not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let text = &*read_json_text(path)?;
    let parsed = serde_json::from_str(text).or_else(|e| serde_json::from_str(&quoted(text)).map_err(|_| e));
    parsed.map_err(|e| {
        let line = text.lines().nth(e.line().saturating_sub(1)).unwrap_or_default();
        let has_comment = ["//", "/*", "#"].iter().any(|mark| line.trim_start().starts_with(mark));
        let why = if has_comment { "; JSON has no comments: remove them" } else { "" };
        Error::model(format!("{} is not JSON: {e}{why}", path.display())).because(e)
    })
}

/// The text with NaN, Infinity and -Infinity in quotes where they stand outside of strings.
fn quoted(json: &str) -> String {
    let (mut out, mut rest, mut in_string) = (String::new(), json, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|w| !in_string && rest.starts_with(w));
        let taken = match (word, c) {
            (Some(word), _) => {
                out += &format!("\"{word}\"");
                rest = &rest[word.len()..];
                continue;
            }
            (None, '\\') if in_string => rest.chars().take(2).map(char::len_utf8).sum(),
            (None, _) => c.len_utf8(),
        };
        in_string ^= c == '"';
        out += &rest[..taken];
        rest = &rest[taken..];
    }
    out
}

/// Checks that these bytes, a file's or its beginning, are the file itself and not a stand-in: a pointer of
/// Git LFS, a web page, a server's refusal, nothing.
///
/// # Errors
/// Of the kind Model; it says what the file is and what to do.
pub fn check(name: &str, bytes: &[u8]) -> Result<()> {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]);
    let head = head.trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let what = if bytes.is_empty() {
        "empty: download it again"
    } else if head.starts_with("version https://git-lfs.github.com/spec/") {
        "a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder, or download the file \
         from its web page"
    } else if ["<!doctype html", "<html", "<?xml"].iter().any(|begin| head.starts_with(begin)) {
        "a web page, not the file itself: download it from an address with /resolve/ rather than /blob/"
    } else if REFUSALS.iter().any(|begin| head.starts_with(begin)) {
        "what a server says where it has no such file for you, not the file itself: download it again, and \
         look at its name and your access to it"
    } else if bytes.len() >= 8 && bytes[..bytes.len().min(4096)].iter().all(|byte| *byte == 0) {
        "filled with zeros, as a download that was broken off leaves it: download it again"
    } else {
        return Ok(());
    };
    Err(Error::model(format!("{name} is {what}")))
}

/// How the answers begin with which the Hub and GitHub refuse a file, in lower case.
const REFUSALS: [&str; 7] = [
    "entry not found",
    "repository not found",
    "invalid username or password",
    "access to model",
    "not found",
    "404: not found",
    "{\"error\":",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_python_writes_them_are_texts() {
        let text = r#"{"a": NaN, "b": [-Infinity, 1], "NaN\"": "a Infinity \\", "c": Infinity}"#;
        let value: Value = serde_json::from_str(&quoted(text)).expect("JSON");
        let wanted = r#"{"a": "NaN", "b": ["-Infinity", 1], "NaN\"": "a Infinity \\", "c": "Infinity"}"#;
        assert_eq!(value, serde_json::from_str::<Value>(wanted).expect("JSON"));
    }

    #[test]
    fn stand_ins_are_named() {
        let said = |bytes: &[u8]| check("a file", bytes).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said(b"version https://git-lfs.github.com/spec/v1\noid sha256:a").contains("git lfs pull"));
        assert!(said(b"\n<!DOCTYPE html><html>").contains("a web page"));
        assert!(said(b"").contains("empty"));
        for refusal in [&b"Entry not found"[..], b"404: Not Found", b"{\"error\":\"Repository not found\"}"] {
            assert!(said(refusal).contains("what a server says"));
        }
        assert!(said(&[0; 100]).contains("zeros"));
        assert_eq!(said(b"{}"), "");
    }
}
