//! Names of models on the Hub, and which files of a repository they mean.

use crate::{
    error::{Error, Remedy, Result},
    weights::Split,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

/// The name of a model on the Hub. `owner/name` means the repository's safetensors, or its GGUF file where it
/// has no safetensors; `owner/name:Q4_K_M` means its GGUF file of that quantisation; `owner/name:file.gguf`
/// means that file. The first part of a split model stands for all parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub(super) repository: String,
    pub(super) pick: Option<String>,
}

impl Name {
    /// None where a text cannot be such a name.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, pick) = match text.split_once(':') {
            Some((repository, pick)) => (repository, Some(pick)),
            None => (text, None),
        };
        let (owner, name) = repository.split_once('/')?;
        let is_word = |word: &str| {
            let is_free = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && word.chars().all(is_free)
                && !word.contains("--")
                && !word.contains("..")
        };
        let is_path =
            |pick: &str| pick.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        (is_word(owner) && is_word(name) && pick.is_none_or(is_path))
            .then(|| Self { repository: repository.to_owned(), pick: pick.map(str::to_owned) })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.pick {
            Some(pick) => write!(f, "{}:{pick}", self.repository),
            None => f.write_str(&self.repository),
        }
    }
}

/// The files that a model needs beside its weights, where the repository has them.
const SMALL: [&str; 11] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    INDEX,
];
const INDEX: &str = "model.safetensors.index.json";
const WHOLE: &str = "model.safetensors";

/// The files of a repository that a name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The files to download first.
    pub small: Vec<String>,
    weights: Weights,
}

#[derive(Debug, PartialEq, Eq)]
enum Weights {
    /// The files that the index lists.
    Indexed,
    Files(Vec<String>),
}

impl Wanted {
    /// Selects from all files of a repository.
    pub fn of(name: &Name, files: &[String]) -> Result<Self> {
        let has = |file: &str| files.iter().any(|f| f == file);
        let safetensors: Vec<String> =
            files.iter().filter(|f| f.ends_with(".safetensors") && !f.contains('/')).cloned().collect();
        if name.pick.is_none() && has("config.json") && !safetensors.is_empty() {
            let mut small: Vec<String> =
                SMALL.iter().filter(|file| has(file)).map(|&file| file.to_owned()).collect();
            let weights = match (has(WHOLE), has(INDEX)) {
                (true, _) => {
                    small.retain(|file| file != INDEX);
                    Weights::Files(vec![WHOLE.to_owned()])
                }
                (_, true) => Weights::Indexed,
                _ => Weights::Files(safetensors),
            };
            match (has("tokenizer.json"), has("vocab.json") && has("merges.txt")) {
                (true, _) => small.retain(|file| file != "vocab.json" && file != "merges.txt"),
                (_, true) => (),
                _ => {
                    return Err(Error::model(format!(
                        "{} holds no tokenizer that can be read: neither tokenizer.json nor vocab.json and \
                         merges.txt",
                        name.repository
                    )));
                }
            }
            return Ok(Self { small, weights });
        }
        Ok(Self { small: Vec::new(), weights: Weights::Files(gguf(name, files)?) })
    }

    /// The names of the weight files. The small files must be in `folder` already.
    pub fn weights(&self, name: &Name, folder: &Path) -> Result<Vec<String>> {
        match &self.weights {
            Weights::Files(files) => Ok(files.clone()),
            Weights::Indexed => indexed(folder).ok_or_else(|| {
                Error::model(format!("{INDEX} of {name} is damaged: it names no files that hold the weights"))
            }),
        }
    }
}

/// The weight files that the index in a folder lists.
fn indexed(folder: &Path) -> Option<Vec<String>> {
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join(INDEX)).ok()?).ok()?;
    let files: Option<BTreeSet<&str>> =
        index["weight_map"].as_object()?.values().map(Value::as_str).collect();
    let is_file = |file: &&str| !file.contains(['/', '\\', ':']) && file.ends_with(".safetensors");
    let files = files.filter(|files| !files.is_empty() && files.iter().all(is_file))?;
    Some(files.into_iter().map(str::to_owned).collect())
}

/// The path of the model that a name means, within a snapshot folder of the cache, if all of its files are
/// present.
pub(super) fn within(name: &Name, folder: &Path) -> Option<PathBuf> {
    let files = files(folder);
    let has = |file: &String| files.contains(file);
    let wanted = Wanted::of(name, &files).ok()?;
    let weights = wanted.weights(name, folder).ok()?;
    if !weights.iter().all(has) {
        return None;
    }
    match weights.as_slice() {
        [gguf, ..] if wanted.small.is_empty() => Some(folder.join(gguf)),
        _ => Some(folder.to_owned()),
    }
}

/// All files below a folder, as sorted relative paths. Broken links are left out.
pub(super) fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|file| format!("{name}/{file}")));
        } else if path.exists() {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Whether a GGUF file stands for a model: later parts of a split model do not, nor does a vision projector
/// (`mmproj`).
pub(super) fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_lowercase();
    let is_later = Split::parse(file).is_some_and(|split| split.number > 1);
    name.ends_with(".gguf") && !name.starts_with("mmproj") && !is_later
}

/// The GGUF files that a name means: a single file, or all parts of a split one.
fn gguf(name: &Name, files: &[String]) -> Result<Vec<String>> {
    let models: Vec<&String> = files.iter().filter(|file| is_model(file)).collect();
    let picked = |pick: &str| -> Vec<&String> {
        let pick = pick.to_lowercase();
        let stem = |file: &str| match Split::parse(file) {
            Some(split) => split.stem.to_lowercase(),
            None => file.to_lowercase().trim_end_matches(".gguf").to_owned(),
        };
        let ends = |file: &&&String| {
            let stem = stem(file);
            let rest = stem.strip_suffix(pick.trim_end_matches(".gguf"));
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(['-', '.', '/']))
        };
        let exact: Vec<_> = models.iter().filter(|file| file.to_lowercase() == pick).copied().collect();
        if exact.is_empty() { models.iter().filter(ends).copied().collect() } else { exact }
    };
    let listed = || models.iter().map(|file| file.as_str()).collect::<Vec<_>>().join(", ");
    let repository = &name.repository;
    if let (true, Some(pick)) =
        (models.is_empty() && files.iter().any(|f| f.ends_with(".safetensors")), &name.pick)
    {
        return Err(Error::model(format!(
            "{repository} has no .gguf files: leave :{pick} away for its safetensors"
        ))
        .with_remedy(Remedy::QuantizeAtLoad));
    }
    if models.is_empty() {
        let is_torch = |file: &String| file.ends_with(".bin") || file.ends_with(".pth");
        let why = match files.iter().any(is_torch) {
            true => "weights in PyTorch's own files are not read",
            false => "another repository may have the model in these",
        };
        return Err(Error::model(format!(
            "{repository} holds neither *.safetensors with a config.json nor a .gguf file: {why}"
        )));
    }
    let whole = |file: &String| -> Result<Vec<String>> {
        let Some(split) = Split::parse(file) else { return Ok(vec![file.clone()]) };
        match split.parts().find(|part| !files.contains(part)) {
            None => Ok(split.parts().collect()),
            Some(part) => {
                Err(Error::model(format!("{repository} lacks {part}, without which {file} is no model")))
            }
        }
    };
    let found = match &name.pick {
        Some(pick) => picked(pick),
        None if models.len() == 1 => models.clone(),
        // The most common choice.
        None => picked("Q4_K_M"),
    };
    match (found.as_slice(), &name.pick) {
        ([file], _) => whole(file),
        ([], None) => whole(models[0]),
        ([], Some(pick)) => {
            Err(Error::model(format!("{repository} has no GGUF file {pick}: it has {}", listed())))
        }
        (several, _) => {
            let names = several.iter().map(|file| file.as_str()).collect::<Vec<_>>().join(", ");
            Err(Error::model(format!("{name} could be each of {names}: name one of these files")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn wanted(text: &str, files: &[&str]) -> Result<Wanted> {
        Wanted::of(&name(text), &files.iter().map(|f| f.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn names_are_owner_and_name() {
        for text in ["openai-community/gpt2", "a/B.c-d_1", "a/b:Q4_K_M", "a/b:sub/file.gguf"] {
            assert_eq!(name(text).to_string(), text);
        }
        for text in [
            "gpt2", "a/b/c", "/a", "a/", "./a", "../a", "a/..", "a/b--c", "a b/c", "a/b:", "a/b:../c",
            "C:\\a",
        ] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_files_needed() {
        let files = [
            "README.md",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/model.safetensors",
            "pytorch_model.bin",
            "tokenizer.json",
            "vocab.json",
        ];
        let found = wanted("a/b", &files).expect("a model");
        assert_eq!(found.small, ["config.json", "generation_config.json", "tokenizer.json"]);
        assert_eq!(found.weights, Weights::Files(vec!["model.safetensors".to_owned()]));
        let sharded = [
            "config.json",
            "vocab.json",
            "merges.txt",
            INDEX,
            "model-1.safetensors",
            "consolidated.safetensors",
        ];
        let found = wanted("a/b", &sharded).expect("a model");
        assert_eq!(found.small, ["config.json", "vocab.json", "merges.txt", INDEX]);
        assert_eq!(found.weights, Weights::Indexed);
    }

    #[test]
    fn a_quantisation_picks_a_file() {
        let files = [
            "b-Q4_K_M.gguf",
            "b-q8_0.gguf",
            "b.IQ4_NL.gguf",
            "mmproj-f16.gguf",
            "big-F16-00001-of-00002.gguf",
            "big-F16-00002-of-00002.gguf",
            "big-BF16-00001-of-00002.gguf",
        ];
        let pick = |text: &str| wanted(text, &files).map(|w| w.weights);
        let file = |file: &str| Weights::Files(vec![file.to_owned()]);
        assert_eq!(pick("a/b").expect("the usual"), file("b-Q4_K_M.gguf"));
        assert_eq!(pick("a/b:Q8_0").expect("any case"), file("b-q8_0.gguf"));
        assert_eq!(pick("a/b:iq4_nl").expect("after a dot"), file("b.IQ4_NL.gguf"));
        assert_eq!(pick("a/b:b.IQ4_NL.gguf").expect("by name"), file("b.IQ4_NL.gguf"));
        let both = Weights::Files(files[4..6].iter().map(|file| file.to_string()).collect());
        assert_eq!(pick("a/b:F16").expect("every part"), both);
        assert_eq!(pick("a/b:big-F16-00001-of-00002.gguf").expect("by the first part"), both);
        let lacking = pick("a/b:BF16").expect_err("half of it").to_string();
        assert!(lacking.contains("lacks big-BF16-00002-of-00002.gguf"), "{lacking}");
        for wrong in ["a/b:K_M", "a/b:Q3_K", "a/b:big-F16-00002-of-00002.gguf"] {
            let error = pick(wrong).expect_err(wrong).to_string();
            assert!(error.contains("b-Q4_K_M.gguf"), "{error}");
        }
        assert_eq!(wanted("a/b", &["x.gguf", "c.gguf"]).expect("one").weights, file("x.gguf"));
        let torch = wanted("a/b", &["config.json", "pytorch_model.bin"]).expect_err("no weights").to_string();
        assert!(torch.contains("PyTorch"), "{torch}");
    }
}
