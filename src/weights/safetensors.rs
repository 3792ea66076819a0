//! Checkpoints in safetensors files (<https://huggingface.co/docs/safetensors>): a single file, or several
//! with an index.

use super::{Format, Spellings, Split, tensors::spelled};
use crate::{
    error::{Error, Result},
    files::{self, read_json},
};
use ::safetensors::{Dtype, SafeTensors};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::ErrorKind,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Shared bytes that a checkpoint's tensors point into: a mapped file, or data built into the binary.
#[derive(Clone)]
pub struct Bytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Bytes {
    pub fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(bytes))
    }
    /// Maps a file into memory.
    pub fn map(path: &Path) -> Result<Self> {
        let failed = |what: &str, e: std::io::Error| {
            Error::model(format!("{} cannot be {what}: {e}", path.display())).because(e)
        };
        let file = File::open(path).map_err(|e| failed("opened", e))?;
        // SAFETY: the file must not change while it is mapped. Model files are written once; truncating one
        // under a running program causes a bus error, as in every program that maps files.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| match e.kind() {
            ErrorKind::OutOfMemory => Error::memory(format!(
                "{} cannot be mapped into memory: {e}; allow the program more address space",
                path.display()
            ))
            .because(e),
            _ => failed("mapped", e),
        })?;
        files::check(&path.display().to_string(), &map)?;
        Ok(Self::new(map))
    }
    pub(super) fn as_slice(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// A tensor of weights, as stored in a file.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub format: Format,
    pub shape: Vec<usize>,
    pub(super) file: Bytes,
    pub(super) range: Range<usize>,
}

impl Tensor {
    pub(super) fn new(
        name: &str,
        format: Format,
        shape: Vec<usize>,
        file: Bytes,
        range: Range<usize>,
    ) -> Self {
        Self { name: name.to_owned(), format, shape, file, range }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.file.as_slice()[self.range.clone()]
    }

    /// Whether another tensor of the same shape has the same values.
    pub fn has_values_of(&self, other: &Self) -> bool {
        if self.format == other.format { self.bytes() == other.bytes() } else { self.rows().eq(other.rows()) }
    }

    /// The dequantised values of each row.
    fn rows(&self) -> impl Iterator<Item = Vec<f32>> {
        let columns = self.shape.last().copied().unwrap_or(1);
        self.bytes().chunks(self.format.row_bytes(columns)).map(move |row| {
            let mut values = vec![0.0; columns];
            self.format.unpack(row, &mut values);
            values
        })
    }
}

/// A tensor as the file's header describes it. `tensor` is None if its type is not a supported [`Format`].
#[derive(Clone)]
pub struct Entry {
    pub dtype: String,
    pub shape: Vec<usize>,
    pub bytes: usize,
    pub tensor: Option<Tensor>,
}

/// The tensors of a checkpoint, by name.
#[derive(Clone, Default)]
pub struct Checkpoint {
    entries: BTreeMap<String, Entry>,
}

impl Checkpoint {
    /// Opens the safetensors files of a folder: `model.safetensors`, or the files that
    /// `model.safetensors.index.json` names, or else all *.safetensors.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut checkpoint = Self::default();
        let Files { paths, index } = Files::of(folder)?;
        for path in paths {
            if !index.is_empty() && !path.exists() {
                return Err(Error::model(format!(
                    "{} is missing, and model.safetensors.index.json says that it holds a part of the \
                     weights: download it too",
                    path.display()
                )));
            }
            let file_name = path.file_name().unwrap_or_default();
            // Where several files hold a tensor, that of the index counts; the others may be stale.
            let counts = |tensor: &str| index.get(tensor).is_none_or(|file| file_name == file.as_str());
            checkpoint.add_some(&path.display().to_string(), Bytes::map(&path)?, counts)?;
        }
        Ok(checkpoint)
    }

    /// Adds a file's tensors.
    pub fn add(&mut self, name: &str, file: Bytes) -> Result<()> {
        self.add_some(name, file, |_| true)
    }

    /// Adds those of a file's tensors that count.
    fn add_some(&mut self, name: &str, file: Bytes, counts: impl Fn(&str) -> bool) -> Result<()> {
        let bytes = file.as_slice();
        let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| {
            Error::model(format!("{name} is not a whole safetensors file: {e}; download it again")).because(e)
        })?;
        let start = header + 8;
        for (tensor_name, info) in metadata.tensors().into_iter().filter(|(tensor, _)| counts(tensor)) {
            let range = start + info.data_offsets.0..start + info.data_offsets.1;
            let format = match info.dtype {
                Dtype::F32 => Some(Format::F32),
                Dtype::F16 => Some(Format::F16),
                Dtype::BF16 => Some(Format::BF16),
                _ => None,
            };
            let tensor =
                format.map(|f| Tensor::new(&tensor_name, f, info.shape.clone(), file.clone(), range.clone()));
            let entry = Entry {
                dtype: format!("{:?}", info.dtype),
                shape: info.shape.clone(),
                bytes: range.len(),
                tensor,
            };
            if !self.insert(&tensor_name, entry) {
                return Err(Error::model(format!(
                    "{name}: the tensor {tensor_name} is in another file too, and there is no \
                     model.safetensors.index.json that says which counts: remove the file that is not \
                     the model's"
                )));
            }
        }
        // safetensors' `save_model` writes tensors that share memory once, and notes their other names.
        for (other, kept) in metadata.metadata().iter().flatten() {
            if let (None, Some(entry)) = (self.get(other), self.get(kept)) {
                self.insert(other, entry.clone());
            }
        }
        Ok(())
    }

    /// Adds a tensor; returns false if there was one of this name.
    pub(crate) fn insert(&mut self, name: &str, entry: Entry) -> bool {
        self.entries.insert(name.to_owned(), entry).is_none()
    }

    /// Adds the tensors of another checkpoint; stops at a name that both have, and returns it.
    pub(crate) fn append(&mut self, other: Self) -> Option<String> {
        let twice = |(name, entry): (String, Entry)| (!self.insert(&name, entry)).then_some(name);
        other.entries.into_iter().find_map(twice)
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }
    /// Finds a tensor by its name, or by the name with one of the other `spellings` of its prefix. Returns
    /// the name it has.
    pub fn find(&self, name: &str, spellings: Spellings) -> Option<(String, &Entry)> {
        spelled(name, spellings).find_map(|name| self.get(&name).map(|entry| (name, entry)))
    }
    /// All tensors, ordered by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }
    /// The number of values in all tensors: the model's parameters.
    pub fn values(&self) -> u64 {
        self.entries.values().map(|entry| entry.shape.iter().map(|n| *n as u64).product::<u64>()).sum()
    }
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The safetensors files of a folder.
struct Files {
    paths: Vec<PathBuf>,
    /// Which file holds a tensor, by the name of each.
    index: BTreeMap<String, String>,
}

impl Files {
    fn of(folder: &Path) -> Result<Self> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        if single.is_file() {
            return Ok(Self { paths: vec![single], index: BTreeMap::new() });
        }
        if index.is_file() {
            #[derive(serde::Deserialize)]
            struct Index {
                weight_map: BTreeMap<String, String>,
            }
            let name = index.display().to_string();
            let index: Index = serde_json::from_value(read_json(&index)?).map_err(|e| {
                Error::model(format!("{name} is not an index of safetensors files: {e}")).because(e)
            })?;
            let index = index.weight_map;
            let names: BTreeSet<_> = index.values().collect();
            if let Some(odd) =
                names.iter().find(|n| Path::new(n).components().count() != 1 || n.contains(".."))
            {
                return Err(Error::model(format!("{name} names {odd:?}, which is not a file beside it")));
            }
            let paths = names.into_iter().map(|name| folder.join(name)).collect();
            return Ok(Self { paths, index });
        }
        let listing = std::fs::read_dir(folder).map_err(|e| {
            Error::model(format!("the folder {} cannot be read: {e}", folder.display())).because(e)
        })?;
        let mut all: Vec<_> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
        all.sort();
        let is = |path: &Path, extension: &str| path.extension().is_some_and(|e| e == extension);
        let found: Vec<_> = all.iter().filter(|p| is(p, "safetensors")).cloned().collect();
        if !found.is_empty() {
            let parts = found.iter().filter_map(|path| Split::parse(path.file_name()?.to_str()?));
            if let Some(part) = parts.flat_map(Split::parts).find(|part| !folder.join(part).exists()) {
                return Err(Error::model(format!(
                    "{} lacks {part}, a part of the weights as the others' names say: download it too",
                    folder.display()
                )));
            }
            return Ok(Self { paths: found, index: BTreeMap::new() });
        }
        let ends = |path: &&PathBuf, ends: &[&str]| ends.iter().any(|end| is(path, end));
        let others = all.iter().find(|path| ends(path, &["bin", "pth", "pt"]));
        let partial = all.iter().find(|path| ends(path, &["incomplete", "part", "crdownload", "download"]));
        Err(Error::model(match (others, partial) {
            (_, Some(partial)) => format!(
                "{} holds no model.safetensors, but {}, a download that was broken off: download it again",
                folder.display(),
                partial.file_name().unwrap_or_default().to_string_lossy(),
            ),
            (Some(other), None) => format!(
                "{} holds only {}, which is not read: convert it to model.safetensors, for instance with \
             transformers' save_pretrained",
                folder.display(),
                other.file_name().unwrap_or_default().to_string_lossy(),
            ),
            (None, None) => format!("{} holds no model.safetensors", folder.display()),
        }))
    }
}
