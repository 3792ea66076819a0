//! Low-rank adapters (LoRA, Hu et al. 2021): what a fine-tuning changed of a model's matrices. Each change is
//! the product of two small matrices, `W' = W + scale · B A`. They are read as PEFT saves them, a folder with
//! adapter_config.json and adapter_model.safetensors, and as llama.cpp has them in GGUF.

use super::{
    Bytes, Checkpoint, Format, Gguf, Matrix, ModelTensors, Order, Spellings, StoredRows, Tensor, TensorSpec,
    Values, tensors::spelled,
};
use crate::{
    buffers::Buffers,
    capabilities::Layout,
    config::Config,
    error::{Error, Result},
    files::read_json,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

/// An adapter's files, opened, and how much of it applies.
#[derive(Clone)]
pub struct Adapter {
    pub path: PathBuf,
    /// What its change is multiplied by where a request does not say it.
    pub scale: f32,
    /// The changes, by the names of the model's tensors.
    changes: BTreeMap<String, Change>,
}

/// The change of one matrix, `scale · B A`.
#[derive(Clone)]
struct Change {
    /// A, `[rank, columns]`.
    a: Tensor,
    /// B, `[rows, rank]`.
    b: Tensor,
    scale: f32,
}

/// What adapters add to a product: `y += B (s · A x)`, where `s` is each request's scale of each adapter.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[rank, columns]`: the rows of all adapters, one adapter after the other.
    pub a: Matrix,
    /// `[rows, rank]`
    pub b: Matrix,
    /// The number of each adapter, and which of the rows of `a` are its own.
    pub adapters: Vec<(u32, Range<u32>)>,
}

impl Adapter {
    /// Opens an adapter for a model: a folder of PEFT's, or a GGUF file.
    ///
    /// # Errors
    /// Of the kind Model where a file is missing, damaged or not supported, or where the adapter is for
    /// another model.
    pub fn open(path: &Path, scale: f32, model: &ModelTensors) -> Result<Self> {
        let changes = if path.is_dir() { of_folder(path)? } else { of_gguf(path)? };
        let adapter = Self { path: path.to_owned(), scale, changes };
        adapter.check(model)?;
        Ok(adapter)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::model(format!("the adapter {} {what}", self.path.display()))
    }

    fn change(&self, spec: &TensorSpec, spellings: Spellings) -> Option<(&str, &Change)> {
        let named = spelled(&spec.name, spellings).find_map(|name| self.changes.get_key_value(&name));
        named.map(|(name, change)| (name.as_str(), change))
    }

    /// Whether each change is of a matrix of the model, and of its shape.
    fn check(&self, model: &ModelTensors) -> Result<()> {
        let mut left: Vec<&str> = self.changes.keys().map(String::as_str).collect();
        for spec in model.layers.iter().flat_map(|layer| layer.matrices()) {
            let Some((name, Change { a, b, .. })) = self.change(spec, model.spellings) else { continue };
            left.retain(|other| *other != name);
            let (rows, columns) = (spec.rows() as usize, spec.columns() as usize);
            if a.shape[1] != columns || b.shape[0] != rows {
                return Err(self.wrong(format_args!(
                    "changes {name} by [{}, {}], but the model's is [{rows}, {columns}]: it is for another \
                     model",
                    b.shape[0], a.shape[1],
                )));
            }
        }
        match left.first() {
            None => Ok(()),
            Some(first) => Err(self.wrong(format_args!(
                "changes {first} and {} more that are not matrices in a layer of this model: it is for \
                 another model, or was made for other names of its tensors (GGUF's for a .gguf file, Hugging \
                 Face's for a folder)",
                left.len() - 1
            ))),
        }
    }

    /// All its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.changes.values().flat_map(|change| [&change.a, &change.b])
    }
}

impl LowRank {
    /// What adapters change of a matrix whose rows are those of `specs`, one after the other. None: nothing.
    pub(super) fn load(
        adapters: &[Adapter],
        specs: &[TensorSpec],
        spellings: Spellings,
        buffers: &mut Buffers,
        label: &str,
        layout: &Layout,
    ) -> Option<Self> {
        let (mut sources, mut segments, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut rank = 0;
        for (number, adapter) in (0..).zip(adapters) {
            let start = rank;
            let mut first_row = 0;
            for spec in specs {
                if let Some((_, change)) = adapter.change(spec, spellings) {
                    let own = change.a.shape[0];
                    let format = change.a.format;
                    sources.push(StoredRows::new(change.a.clone(), format, false, Order::AsStored));
                    parts.push((first_row, rank as usize, spec.order, change));
                    rank += own as u32;
                }
                first_row += spec.rows();
            }
            if rank > start {
                segments.push((number, start..rank));
            }
        }
        if sources.is_empty() {
            return None;
        }
        // Each change has rows and columns of its own in B; the rest is zero.
        let rows: u32 = specs.iter().map(TensorSpec::rows).sum();
        let mut values = vec![0.0; rows as usize * rank as usize];
        for (first_row, first_column, order, Change { b, scale, .. }) in parts {
            let own = b.shape[1];
            let mut stored = vec![0.0; b.shape[0] * own];
            b.format.unpack(b.bytes(), &mut stored);
            for row in 0..b.shape[0] {
                let from = &stored[order.stored(row as u32) as usize * own..][..own];
                let to = (first_row as usize + row) * rank as usize + first_column;
                values[to..to + own].iter_mut().zip(from).for_each(|(to, from)| *to = scale * from);
            }
        }
        let (shape, bytes) = (vec![rows as usize, rank as usize], values.len() * 4);
        let b = Tensor::new(label, Format::F32, shape, Bytes::new(Values(values)), 0..bytes);
        let b = vec![StoredRows::new(b, Format::F32, false, Order::AsStored)];
        Some(Self {
            a: Matrix::declare(buffers, &format!("{label}_a"), sources, layout, None),
            b: Matrix::declare(buffers, &format!("{label}_b"), b, layout, None),
            adapters: segments,
        })
    }

    /// The sum of the adapters' ranks.
    pub fn rank(&self) -> u32 {
        self.a.rows
    }
}

/// Joins pairs of tensors to changes. `scale`: what belongs to a pair of this name and rank.
fn changes(
    path: &Path,
    checkpoint: &Checkpoint,
    split: impl Fn(&str) -> Option<(String, bool)>,
    scale: impl Fn(&str, usize) -> f32,
) -> Result<BTreeMap<String, Change>> {
    let wrong = |what: String| Error::model(format!("the adapter {}: {what}", path.display()));
    let mut pairs: BTreeMap<String, [Option<Tensor>; 2]> = BTreeMap::new();
    for (name, entry) in checkpoint.entries() {
        let Some((of, is_b)) = split(name) else {
            return Err(wrong(format!(
                "{name} is not one of the two factors of a matrix, and other changes are not read: make it \
                 without, or merge it into the model"
            )));
        };
        let Some(tensor) = entry.tensor.clone().filter(|tensor| tensor.shape.len() == 2) else {
            let found = format!("{} {:?}", entry.dtype, entry.shape);
            return Err(wrong(format!(
                "{name} is {found}, but a matrix of a type that is read belongs there"
            )));
        };
        pairs.entry(of).or_default()[usize::from(is_b)] = Some(tensor);
    }
    if pairs.is_empty() {
        return Err(wrong("it holds no tensors".to_owned()));
    }
    let mut changes = BTreeMap::new();
    for (name, pair) in pairs {
        let [Some(a), Some(b)] = pair else {
            return Err(wrong(format!(
                "{name} has one factor alone, but two belong there: download it again"
            )));
        };
        let rank = a.shape[0];
        if rank == 0 || b.shape[1] != rank {
            return Err(wrong(format!("the factors of {name} are {:?} and {:?}", b.shape, a.shape)));
        }
        let scale = scale(&name, rank);
        changes.insert(name, Change { a, b, scale });
    }
    Ok(changes)
}

/// A GGUF file, as llama.cpp's convert_lora_to_gguf.py writes it.
fn of_gguf(path: &Path) -> Result<BTreeMap<String, Change>> {
    if !path.is_file() {
        return Err(Error::model(format!(
            "the adapter {} is neither a .gguf file nor a folder with adapter_config.json",
            path.display()
        )));
    }
    let gguf = Gguf::open(path)?;
    for (key, wanted) in [("general.type", "adapter"), ("adapter.type", "lora")] {
        if gguf.string(key)? != Some(wanted) {
            return Err(gguf.wrong(key, format!("an adapter's is {wanted}; a model belongs to --model")));
        }
    }
    let alpha = gguf.number("adapter.lora.alpha")?.unwrap_or(0.0);
    let split = |name: &str| {
        let a = name.strip_suffix(".lora_a").map(|of| (of.to_owned(), false));
        a.or_else(|| name.strip_suffix(".lora_b").map(|of| (of.to_owned(), true)))
    };
    // Without one the change is taken as it is.
    let scale = |_: &str, rank: usize| if alpha == 0.0 { 1.0 } else { (alpha / rank as f64) as f32 };
    changes(path, &gguf.checkpoint, split, scale)
}

/// A folder, as PEFT's `save_pretrained` writes it.
fn of_folder(path: &Path) -> Result<BTreeMap<String, Change>> {
    let config_path = path.join("adapter_config.json");
    if !config_path.is_file() {
        return Err(Error::model(format!(
            "the adapter {} holds no adapter_config.json: it is not a folder of PEFT's",
            path.display()
        )));
    }
    let json = read_json(&config_path)?;
    let name = config_path.display().to_string();
    let config = Config::new(&name, &json)?;
    let kind = config.str("peft_type")?.unwrap_or("LORA");
    if kind != "LORA" {
        return Err(config.wrong("peft_type", "of PEFT's adapters LORA is read: merge it into the model"));
    }
    for field in [
        "use_dora",
        "use_bdlora",
        "use_qalora",
        "lora_bias",
        "alora_invocation_tokens",
        "arrow_config",
        "kasa_config",
    ] {
        let is_off = json.get(field).is_none_or(|value| value.is_null() || value == false);
        if !is_off {
            return Err(config.wrong(field, "it is not read: merge the adapter into the model"));
        }
    }
    if config.str("bias")?.is_some_and(|bias| bias != "none") {
        return Err(config.wrong("bias", "changed biases are not read: merge the adapter into the model"));
    }
    // Others begin by taking a part out of the model's weights, which PEFT repeats when it loads the adapter.
    if let Some(start) = json.get("init_lora_weights").and_then(|start| start.as_str())
        && !["gaussian", "orthogonal", "eva"].contains(&start)
    {
        return Err(config.wrong(
            "init_lora_weights",
            "it changes the model's own weights: save the adapter with \
             path_initial_model_for_weight_conversion, or merge it into the model",
        ));
    }
    let is_rank_stable = config.bool("use_rslora", false)?;
    let alpha = config.f64("lora_alpha", 8.0)?;
    let alphas = config.get("alpha_pattern").and_then(|pattern| pattern.as_object());
    let is_regex = |key: &&String| key.contains(['*', '+', '?', '[', '(', '{', '|', '\\', '$']);
    if let Some(odd) = alphas.iter().flat_map(|pattern| pattern.keys()).find(is_regex) {
        let why = format!("{odd} is a regular expression, and only ends of names are read there");
        return Err(config.wrong("alpha_pattern", why));
    }
    let file = path.join("adapter_model.safetensors");
    if !file.is_file() {
        let bin = path.join("adapter_model.bin");
        return Err(Error::model(match bin.is_file() {
            true => format!(
                "{} is not read: save the adapter with safe_serialization=True, as \
                 adapter_model.safetensors",
                bin.display()
            ),
            false => format!("the adapter {} holds no adapter_model.safetensors", path.display()),
        }));
    }
    let mut checkpoint = Checkpoint::default();
    checkpoint.add(&file.display().to_string(), Bytes::map(&file)?)?;
    let split = |name: &str| {
        let name = name.strip_prefix("base_model.model.").unwrap_or(name);
        let factor = |end: &str| name.strip_suffix(end).map(|module| format!("{module}.weight"));
        let a = factor(".lora_A.weight").map(|of| (of, false));
        a.or_else(|| factor(".lora_B.weight").map(|of| (of, true)))
    };
    let scale = |name: &str, rank: usize| {
        let module = name.trim_end_matches(".weight");
        let is_meant = |key: &str| {
            let before = module.strip_suffix(key.trim_start_matches('^'));
            before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
        };
        let own = alphas.and_then(|pattern| pattern.iter().find(|(key, _)| is_meant(key)));
        let alpha = own.and_then(|(_, alpha)| alpha.as_f64()).unwrap_or(alpha);
        let rank = rank as f64;
        (alpha / if is_rank_stable { rank.sqrt() } else { rank }) as f32
    };
    changes(path, &checkpoint, split, scale)
}
