//! Models split over several files (<https://github.com/ggml-org/llama.cpp/tree/master/tools/gguf-split>):
//! the first file holds the metadata, and each holds some of the tensors. `split.no` is a file's number,
//! `split.count` the number of files.

use super::{Gguf, Value};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The file name of a part of a split model, parsed: `STEM-00002-of-00003.gguf`, or `.safetensors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    pub stem: &'a str,
    /// The number of the part, from 1.
    pub number: u32,
    pub count: u32,
    extension: &'a str,
}

impl<'a> Split<'a> {
    /// Parses a file name; None if it is not the name of a part.
    pub fn parse(file: &'a str) -> Option<Self> {
        let (name, extension) = file.rsplit_once('.')?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let five = |text: &str| {
            (text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
        };
        let (number, count) = (five(number)?, five(count)?);
        let is_part = (1..=count).contains(&number) && ["gguf", "safetensors"].contains(&extension);
        is_part.then_some(Self { stem, number, count, extension })
    }

    /// The names of all parts, in order.
    pub fn parts(self) -> impl Iterator<Item = String> {
        let Self { stem, count, extension, .. } = self;
        (1..=count).map(move |number| format!("{stem}-{number:05}-of-{count:05}.{extension}"))
    }

    /// The files that belong to the one at `path`, in order: all parts if it is named as a part, else the
    /// file itself.
    pub fn files(path: &Path) -> Vec<PathBuf> {
        match path.file_name().and_then(|name| Split::parse(name.to_str()?)) {
            Some(split) => split.parts().map(|part| path.with_file_name(part)).collect(),
            None => vec![path.to_owned()],
        }
    }
}

impl Gguf {
    /// Opens a model: a file, or all files of a split model if `path` is any part of it.
    ///
    /// # Errors
    /// Of the kind Model if a file cannot be read or is damaged, or if a part is missing or belongs to
    /// another model.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Self::map(path)?;
        let count = file.split("split.count").unwrap_or(0);
        // A file that was merged from parts says 0.
        if count < 2 {
            return Ok(file);
        }
        let files = Split::files(path);
        if files.len() as i64 != count {
            return Err(Error::model(format!(
                "{} is one of {count} parts of a model, but its name does not say which: it should end in \
                 -00001-of-{count:05}.gguf or the like, and the others lie beside it",
                file.name
            )));
        }
        let mut parts = files.iter().zip(0..).map(|(path, number)| {
            let missing = |e: Error| {
                Error::model(format!("{e}; all {count} parts of the model belong beside each other"))
                    .because(e)
            };
            let part = Self::map(path).map_err(missing)?;
            if part.split("split.no") != Some(number) || part.split("split.count") != Some(count) {
                return Err(Error::model(format!(
                    "{} is not what its name says, part {} of {count}: download it again",
                    part.name,
                    number + 1,
                )));
            }
            Ok(part)
        });
        let mut whole = parts.next().expect("two at least")?;
        for part in parts {
            let Self { name, checkpoint, .. } = part?;
            if let Some(twice) = whole.checkpoint.append(checkpoint) {
                return Err(Error::model(format!("{name}: the tensor {twice} is in another part too")));
            }
        }
        match whole.split("split.tensors.count") {
            Some(tensors) if tensors != whole.checkpoint.len() as i64 => Err(Error::model(format!(
                "{} should have {tensors} tensors in its {count} parts, but has {}: download them again",
                whole.name,
                whole.checkpoint.len(),
            ))),
            _ => Ok(whole),
        }
    }

    fn split(&self, key: &str) -> Option<i64> {
        match self.get(key) {
            Some(Value::Int(n)) => Some(*n),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        let split = Split::parse("a/b-Q8_0-00002-of-00003.gguf").expect("a part");
        assert_eq!((split.stem, split.number, split.count), ("a/b-Q8_0", 2, 3));
        assert_eq!(split.parts().nth(1).as_deref(), Some("a/b-Q8_0-00002-of-00003.gguf"));
        for other in [
            "b.gguf",
            "b-0002-of-0003.gguf",
            "b-00000-of-00003.gguf",
            "b-00004-of-00003.gguf",
            "b-00001-of-00003",
            "b-00001-of-00003.bin",
        ] {
            assert_eq!(Split::parse(other), None, "{other}");
        }
    }
}
