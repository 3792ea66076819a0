//! The tensors that a model needs, and the check that a checkpoint has them.

use super::{Checkpoint, Format, Made, Order, StoredRows, Tensor, Values};
use crate::{
    architecture::Norms,
    error::{Error, Result},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    sync::Arc,
};

/// One tensor that a model needs, with the name and shape under which its family stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    /// As stored: `[rows, columns]`, or `[length]`. A convolution's kernels have further dimensions, which
    /// are all read as columns.
    pub shape: Vec<u32>,
    /// Whether the tensor is stored transposed, as `[columns, rows]` (Conv1D).
    pub transposed: bool,
    pub order: Order,
    /// The format in memory; None: as stored.
    pub format: Option<Format>,
}

impl TensorSpec {
    pub fn matrix(name: impl Into<String>, rows: u32, columns: u32) -> Self {
        Self {
            name: name.into(),
            shape: vec![rows, columns],
            transposed: false,
            order: Order::AsStored,
            format: None,
        }
    }
    /// A matrix, `[rows, columns]`, that is stored transposed.
    pub fn transposed(name: impl Into<String>, rows: u32, columns: u32) -> Self {
        Self { shape: vec![columns, rows], transposed: true, ..Self::matrix(name, rows, columns) }
    }
    pub fn vector(name: impl Into<String>, len: u32) -> Self {
        Self { shape: vec![len], ..Self::matrix(name, len, 1) }
    }
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }
    /// Whether a tensor of this shape is the one. Some GGUF files store a vector as one row, or one column.
    pub fn fits(&self, shape: &[usize]) -> bool {
        let wanted: Vec<_> = self.shape.iter().map(|n| *n as usize).collect();
        match (&wanted[..], shape) {
            ([len], [1, n] | [n, 1]) => n == len,
            (wanted, shape) => wanted == shape,
        }
    }
    /// Rows of the matrix that the tensor is read as.
    pub fn rows(&self) -> u32 {
        if self.transposed { self.shape[1..].iter().product() } else { self.shape[0] }
    }
    /// Columns of the matrix that the tensor is read as.
    pub fn columns(&self) -> u32 {
        if self.transposed { self.shape[0] } else { self.shape[1..].iter().product() }
    }
}

#[derive(Clone, Debug)]
pub struct NormTensors {
    pub weight: TensorSpec,
    pub bias: Option<TensorSpec>,
}

impl NormTensors {
    fn specs(&self) -> impl Iterator<Item = &TensorSpec> {
        std::iter::once(&self.weight).chain(&self.bias)
    }
}

impl VisionTensors {
    fn specs(&self) -> Vec<&TensorSpec> {
        let Self { patches, class, positions, norm, layers, project, project_bias } = self;
        let mut all = vec![patches, class, positions];
        all.extend(norm.specs());
        all.extend(layers.iter().flat_map(LayerTensors::specs));
        all.extend(project.iter().chain(project_bias.iter().flatten()));
        all
    }
}

/// A layer's tensors.
#[derive(Clone, Debug)]
pub struct LayerTensors {
    pub attention: AttentionTensors,
    pub mlp: MlpTensors,
}

/// The tensors of a layer's attention. Those in a list form one matrix, one after the other: q, k, v.
#[derive(Clone, Debug)]
pub struct AttentionTensors {
    pub norms: Norms<NormTensors>,
    pub qkv: Vec<TensorSpec>,
    pub qkv_bias: Vec<TensorSpec>,
    /// The norm weights of each head of q and of k, in models that normalize them.
    pub qk_norm: Option<[TensorSpec; 2]>,
    pub out: TensorSpec,
    pub out_bias: Option<TensorSpec>,
}

/// The tensors of a layer's MLP. Those in a list form one matrix, one after the other: gate, up.
#[derive(Clone, Debug)]
pub struct MlpTensors {
    pub norms: Norms<NormTensors>,
    pub up: Vec<TensorSpec>,
    pub up_bias: Vec<TensorSpec>,
    pub down: TensorSpec,
    pub down_bias: Option<TensorSpec>,
}

impl LayerTensors {
    fn specs(&self) -> Vec<&TensorSpec> {
        let AttentionTensors { norms: around_attention, qkv, qkv_bias, qk_norm, out, out_bias } =
            &self.attention;
        let MlpTensors { norms: around_mlp, up, up_bias, down, down_bias } = &self.mlp;
        let mut all: Vec<_> = qkv.iter().chain(qkv_bias).chain(up).chain(up_bias).collect();
        all.extend(qk_norm.iter().flatten());
        all.extend([out, down].into_iter().chain(out_bias).chain(down_bias));
        all.extend(around_attention.all().chain(around_mlp.all()).flat_map(NormTensors::specs));
        all
    }
    /// Keeps the rows of q and k in the stored order.
    pub fn keep_order(&mut self) {
        let AttentionTensors { qkv, qkv_bias, qk_norm, .. } = &mut self.attention;
        let rotated = qkv.iter_mut().chain(qkv_bias).chain(qk_norm.iter_mut().flatten());
        rotated.for_each(|spec| spec.order = Order::AsStored);
    }
    pub fn matrices(&self) -> impl Iterator<Item = &TensorSpec> {
        let Self { attention, mlp } = self;
        attention.qkv.iter().chain(&mlp.up).chain([&attention.out, &mlp.down])
    }
    pub fn matrices_mut(&mut self) -> impl Iterator<Item = &mut TensorSpec> {
        let Self { attention, mlp } = self;
        attention.qkv.iter_mut().chain(&mut mlp.up).chain([&mut attention.out, &mut mlp.down])
    }
}

/// A model's tensors.
#[derive(Clone, Debug)]
pub struct ModelTensors {
    pub spellings: Spellings,
    pub tokens: TensorSpec,
    pub positions: Option<TensorSpec>,
    pub layers: Vec<LayerTensors>,
    pub final_norm: Option<NormTensors>,
    /// None: tied to the token embedding.
    pub head: Option<TensorSpec>,
    /// The names of further tensors that checkpoints of the family may have and that are not needed: causal
    /// masks, the tied head.
    pub ignored: Vec<String>,
    pub vision: Option<VisionTensors>,
}

/// Other prefixes that tensor names may have: (ours, theirs).
pub type Spellings = &'static [(&'static str, &'static str)];

/// A tensor's name, then what it is called with the other spellings of its prefix.
pub(super) fn spelled(name: &str, spellings: Spellings) -> impl Iterator<Item = String> {
    let other = move |(ours, theirs): &(&str, &str)| Some(format!("{theirs}{}", name.strip_prefix(ours)?));
    std::iter::once(name.to_owned()).chain(spellings.iter().filter_map(other))
}

/// The tensors of a vision tower.
#[derive(Clone, Debug)]
pub struct VisionTensors {
    /// The kernels of the convolution that embeds patches: a row per value of a patch's hidden state.
    pub patches: TensorSpec,
    /// The class embedding, which takes the position before the patches.
    pub class: TensorSpec,
    pub positions: TensorSpec,
    pub norm: NormTensors,
    pub layers: Vec<LayerTensors>,
    /// The two matrices of the projector, from the tower's hidden size to the language model's.
    pub project: [TensorSpec; 2],
    /// Their biases.
    pub project_bias: Option<[TensorSpec; 2]>,
}

/// The tensors that were found in a checkpoint, by the names of their specs.
pub(super) struct Found(HashMap<String, Tensor>);

impl Found {
    fn tensor(&self, spec: &TensorSpec) -> &Tensor {
        self.0.get(&spec.name).expect("every spec was found")
    }
    /// A matrix's rows, to be converted as its spec says.
    pub fn rows(&mut self, spec: &TensorSpec) -> StoredRows {
        let mut tensor = self.tensor(spec).clone();
        tensor.shape = vec![tensor.shape[0], tensor.shape[1..].iter().product()];
        let format = spec.format.unwrap_or(tensor.format);
        StoredRows::new(tensor, format, spec.transposed, spec.order)
    }
    /// All values of a matrix, dequantised.
    pub fn matrix(&self, spec: &TensorSpec) -> Vec<f32> {
        let tensor = self.tensor(spec);
        let mut values = vec![0.0; tensor.shape.iter().product()];
        tensor.format.unpack(tensor.bytes(), &mut values);
        values
    }
    /// The values of a vector, dequantised and reordered.
    pub fn values(&self, spec: &TensorSpec) -> Vec<f32> {
        let tensor = self.tensor(spec);
        let mut stored = vec![0.0; spec.shape[0] as usize];
        tensor.format.unpack(tensor.bytes(), &mut stored);
        (0..spec.shape[0]).map(|i| stored[spec.order.stored(i) as usize]).collect()
    }
}

impl ModelTensors {
    /// The specs of all tensors.
    pub fn specs(&self) -> Vec<&TensorSpec> {
        let mut all = vec![&self.tokens];
        all.extend(&self.positions);
        all.extend(self.layers.iter().flat_map(LayerTensors::specs));
        all.extend(self.final_norm.iter().flat_map(NormTensors::specs));
        all.extend(&self.head);
        all.extend(self.vision.iter().flat_map(VisionTensors::specs));
        all
    }

    /// Settles which tensors are the embedding and the head where they should be tied. A checkpoint may store
    /// the one matrix under either name. If it stores a head with other values than the embedding, the head
    /// is used, as in transformers since version 5.
    pub fn tie(&mut self, checkpoint: &Checkpoint) {
        if self.head.is_some() {
            return;
        }
        let head = TensorSpec::matrix("lm_head.weight", self.tokens.shape[0], self.tokens.columns());
        let stored = |spec: &TensorSpec| checkpoint.find(&spec.name, self.spellings).map(|(_, entry)| entry);
        let Some(own) = stored(&head) else { return };
        let Some(tokens) = stored(&self.tokens) else {
            self.tokens = head;
            return;
        };
        let both = own.tensor.as_ref().zip(tokens.tensor.as_ref());
        if !both.is_some_and(|(own, tokens)| own.shape == tokens.shape && own.has_values_of(tokens)) {
            tracing::warn!(
                "lm_head.weight is not the embedding, which config.json says it is: it is taken as it is \
                 stored"
            );
            self.head = Some(head);
        }
    }

    /// Prepares tensors for writing: matrices in the formats of their specs, vectors as f32.
    ///
    /// # Errors
    /// As for [`super::Weights::load`].
    pub fn make(&self, specs: &[&TensorSpec], checkpoint: &Checkpoint) -> Result<Vec<Made>> {
        let mut found = self.find(checkpoint)?;
        let mut make = |spec: &&TensorSpec| match spec.shape.len() {
            1 => Made {
                shape: vec![spec.shape[0] as usize],
                format: Format::F32,
                contents: Arc::new(Values(found.values(spec))),
            },
            _ => {
                let rows = found.rows(spec);
                let shape = vec![rows.len() as usize, rows.columns() as usize];
                Made { shape, format: rows.format(), contents: Arc::new(rows) }
            }
        };
        Ok(specs.iter().map(&mut make).collect())
    }

    /// Finds all tensors. The error lists in one table those that are missing, have the wrong shape or an
    /// unsupported type, and those that no part of the model uses: without them it would compute something
    /// else than it was trained to.
    pub(super) fn find(&self, checkpoint: &Checkpoint) -> Result<Found> {
        let (mut found, mut used) = (HashMap::new(), BTreeSet::new());
        let mut table: Vec<[String; 3]> = Vec::new();
        for spec in self.specs() {
            let Some((name, entry)) = checkpoint.find(&spec.name, self.spellings) else {
                table.push([spec.name.clone(), "missing".to_owned(), format!("{:?}", spec.shape)]);
                continue;
            };
            used.insert(name.clone());
            if !spec.fits(&entry.shape) {
                let wanted = format!("{}, the model has {:?}", shape(&entry.shape), spec.shape);
                table.push([name, "mis-shaped".to_owned(), wanted]);
                continue;
            }
            match &entry.tensor {
                Some(tensor) => {
                    found.insert(spec.name.clone(), tensor.clone());
                }
                None => table.push([name, UNREAD.to_owned(), entry.dtype.clone()]),
            }
        }
        let bad = table.len();
        let ignored = self.ignored.iter().filter_map(|name| checkpoint.find(name, self.spellings));
        used.extend(ignored.map(|(name, _)| name));
        for (name, entry) in checkpoint.entries() {
            let is_aside = ASIDE.iter().any(|end| ends_in(name, end));
            if !used.contains(name) && !is_aside && entry.bytes > 0 {
                table.push([name.to_owned(), "unexpected".to_owned(), shape(&entry.shape)]);
            }
        }
        let says = "what config.json, or the GGUF file's metadata, says of the model";
        if bad > 0 {
            let remedy = match table[..bad].iter().all(|[_, what, _]| what == UNREAD) {
                true => format!("these are read: {}", Format::ALL.map(Format::name).join(", ")),
                false => "are they of one model and whole?".to_owned(),
            };
            return Err(Error::model(format!(
                "the weights do not fit {says}: {bad} of {} tensors are missing, mis-shaped or of a type \
                 that is not read; {remedy}{}",
                self.specs().len(),
                print(&table),
            )));
        }
        if !table.is_empty() {
            return Err(Error::model(format!(
                "the weights hold more than {says}: {} tensors belong to no part of it, and without them it \
                 would answer wrongly; is it of another kind, or made with adapters that are to be merged \
                 first?{}",
                table.len(),
                print(&table)
            )));
        }
        Ok(Found(found))
    }
}

/// Ends of the names of tensors that change no text: buffers that older programs saved, which follow from the
/// model's sizes, and heads for other tasks beside the one for text.
const ASIDE: [&str; 9] = [
    "position_ids",
    "rotary_emb.inv_freq",
    "rotary_emb.cos_cached",
    "rotary_emb.sin_cached",
    "masked_bias",
    "v_head.summary.weight",
    "v_head.summary.bias",
    "multiple_choice_head.summary.weight",
    "multiple_choice_head.summary.bias",
];

/// Whether a tensor's name ends in this one, which begins at a dot.
fn ends_in(name: &str, end: &str) -> bool {
    let before = name.strip_suffix(end);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The table's word for a tensor whose type is not a supported [`Format`].
const UNREAD: &str = "not read";

/// A shape as text; only the number of dimensions if there are absurdly many.
fn shape(shape: &[usize]) -> String {
    if shape.len() > 8 { format!("{} dimensions", shape.len()) } else { format!("{shape:?}") }
}

/// The first lines of a table as text, and how many more there are.
fn print(table: &[[String; 3]]) -> String {
    const LINES: usize = 24;
    let width = |column: usize| table.iter().take(LINES).map(|l| l[column].len()).max().unwrap_or(0);
    let (a, b) = (width(0), width(1));
    let mut text = String::new();
    for [name, what, shape] in table.iter().take(LINES) {
        write!(text, "\n  {name:a$}  {what:b$}  {shape}").expect("writing to a string");
    }
    if table.len() > LINES {
        write!(text, "\n  … and {} more", table.len() - LINES).expect("writing to a string");
    }
    text
}
