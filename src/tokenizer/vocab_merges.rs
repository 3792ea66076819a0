//! Tokenizers from vocab.json and merges.txt.

use super::{Settings, Tokenizer, classes};
use crate::{
    error::{Error, Result},
    files::{read_json, read_text},
};
use serde_json::json;
use std::path::Path;

/// Reads the two files as the settings' class does.
///
/// # Errors
/// Of the kind Model where the files are damaged, or the class is not known.
pub(super) fn read(vocab: &Path, merges: &Path, settings: &Settings) -> Result<Tokenizer> {
    let text = read_text(merges)?;
    let lines = text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let pairs = lines.map(|line| {
        line.split_once(' ').map(|(left, right)| [left, right]).ok_or_else(|| {
            Error::model(format!("{} is damaged: {line} is no pair; download it again", merges.display()))
        })
    });
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    let json = classes::tokenizer_json(settings, read_json(vocab)?, json!(pairs)).ok_or_else(|| {
        let class = if settings.class.is_empty() { "no class of tokenizer" } else { &settings.class };
        let known = classes::KNOWN.join(", ");
        Error::model(format!(
            "{} and {} are there, and {class} is named, but such files are read for these classes only: \
             {known}; fetch the model's tokenizer.json",
            vocab.display(),
            merges.display()
        ))
    })?;
    let name = format!("{} with {}", vocab.display(), merges.display());
    Tokenizer::from_json(&name, json.to_string().as_bytes())
}
