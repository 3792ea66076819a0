//! A step is the input of one run of a plan: tokens, each with its position and sequence, and the sequences'
//! block tables.
//!
//! On the GPU a step is a flat array of words at group 0 (shaders/step.wgsl reads it): a header of `HEADER`
//! words, the rows, the outputs, the block tables, the sampling settings, the targets, the tokens whose
//! logits change, and the adapters' scales.

use crate::{
    buffers::BLOCK,
    sampling::{Draw, MAX_BIASES, Pick},
    workload::Workload,
};

/// In place of a token id: the device sampled the token, and its id is in the ids buffer at the row's
/// sequence.
pub const SAMPLED: u32 = u32::MAX;

/// In place of a token id: the row holds a token of an image, and its embedding comes from the vision
/// encoder.
pub const FEATURE: u32 = u32::MAX - 1;

/// One token of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// A token id, or [`SAMPLED`], or [`FEATURE`].
    pub token: u32,
    pub position: u32,
    /// The slot of the token's sequence: the index of its block table and of its sampled id.
    pub sequence: u32,
}

/// The tokens of one run of a plan.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub rows: Vec<Row>,
    /// Whether each row attends to all rows, not only to those up to its own. Used for the patches of one
    /// image, in order.
    pub bidirectional: bool,
    /// The indices of the rows whose logits are wanted.
    pub outputs: Vec<u32>,
    /// For each output, the token whose log-probability is requested. Empty if none is requested at all.
    pub targets: Vec<u32>,
    /// For each sequence slot, the cache blocks that hold its positions, in order.
    pub tables: Vec<Vec<u32>>,
    /// For each sequence slot, how to sample its next token. Slots without an entry are greedy.
    pub picks: Vec<Pick>,
    /// For each sequence slot, how much of each of the model's adapters applies. Empty, as a whole or for a
    /// slot: none does.
    pub adapters: Vec<Vec<f32>>,
}

/// Words before the first row.
const HEADER: usize = 8;
/// Words per row.
const ROW: usize = 4;
/// Words of sampling settings per sequence.
const PICK: usize = 16;
/// Words per token whose logit changes.
const ADJUSTED: usize = 4;

impl Step {
    /// The position in the cache that holds a position of a sequence.
    pub fn slot(&self, sequence: u32, position: u32) -> u32 {
        self.tables[sequence as usize][(position / BLOCK) as usize] * BLOCK + position % BLOCK
    }

    /// The last position that a row attends to.
    pub fn attends_to(&self, row: &Row) -> u32 {
        let last = if self.bidirectional { self.rows.last() } else { None };
        last.unwrap_or(row).position
    }

    /// How to sample a sequence's next token.
    pub fn draw_of(&self, sequence: u32) -> Draw {
        self.picks.get(sequence as usize).map_or(Draw::GREEDY, |pick| pick.draw)
    }

    /// How much of an adapter applies to a sequence.
    pub fn adapter_scale(&self, sequence: u32, adapter: u32) -> f32 {
        let scales = self.adapters.get(sequence as usize);
        scales.and_then(|scales| scales.get(adapter as usize)).copied().unwrap_or(0.0)
    }

    pub fn load(&self) -> Workload {
        Workload {
            rows: self.rows.len() as u32,
            outputs: self.outputs.len() as u32,
            targets: self.targets.len() as u32,
            adjusted: match self.picks.iter().all(|pick| pick.adjusted.is_empty()) {
                true => 0,
                false => self.outputs.len() as u32,
            },
            context: self.rows.iter().map(|r| r.position + 1).max().unwrap_or(0),
        }
    }

    /// The step as the words that shaders/step.wgsl reads.
    pub fn words(&self) -> Vec<u32> {
        let stride = self.tables.iter().map(Vec::len).max().unwrap_or(0);
        let outputs_at = HEADER + self.rows.len() * ROW;
        let tables_at = outputs_at + self.outputs.len();
        let picks_at = tables_at + stride * self.tables.len();
        let targets_at = picks_at + PICK * self.tables.len();
        let mut words = vec![
            self.rows.len() as u32,
            self.outputs.len() as u32,
            HEADER as u32,
            outputs_at as u32,
            tables_at as u32,
            stride as u32,
            picks_at as u32,
            targets_at as u32,
        ];
        words.extend(self.rows.iter().flat_map(|r| [r.token, r.position, r.sequence, self.attends_to(r)]));
        words.extend(&self.outputs);
        for table in &self.tables {
            words.extend(table);
            words.extend(std::iter::repeat_n(0, stride - table.len()));
        }
        let mut adjusted_at = targets_at + self.targets.len();
        let adapters = self.adapters.iter().map(Vec::len).max().unwrap_or(0);
        let changes =
            self.picks.iter().take(self.tables.len()).map(|pick| pick.adjusted.len()).sum::<usize>();
        let mut adapters_at = adjusted_at + ADJUSTED * changes;
        for sequence in 0..self.tables.len() {
            static GREEDY: Pick = Pick::GREEDY;
            let Pick { draw, penalties, adjusted } = self.picks.get(sequence).unwrap_or(&GREEDY);
            words.extend([draw.temperature.to_bits(), draw.top_k]);
            words.extend([draw.top_p, draw.min_p_margin].map(f32::to_bits));
            words.extend([draw.seed as u32, (draw.seed >> 32) as u32]);
            words.extend([draw.typical_p, draw.mirostat_min_p].map(f32::to_bits));
            words.extend([draw.xtc.probability, draw.xtc.threshold].map(f32::to_bits));
            words.extend([penalties.repetition, penalties.frequency, penalties.presence].map(f32::to_bits));
            words.extend([adjusted_at as u32, adjusted.len() as u32, adapters_at as u32]);
            adjusted_at += ADJUSTED * adjusted.len();
            adapters_at += adapters;
        }
        words.extend(&self.targets);
        let adjusted = self.picks.iter().take(self.tables.len()).flat_map(|pick| &pick.adjusted);
        words.extend(adjusted.flat_map(|to| [to.token, to.count, to.bias.to_bits(), to.dry.to_bits()]));
        let slots = 0..self.tables.len() as u32;
        let scales = slots.flat_map(|slot| (0..adapters as u32).map(move |adapter| (slot, adapter)));
        words.extend(scales.map(|(slot, adapter)| self.adapter_scale(slot, adapter).to_bits()));
        words
    }

    /// The most words of a step with so many rows, outputs and sequences, and so many blocks and adapters per
    /// sequence.
    pub fn max_words(rows: u32, outputs: u32, sequences: u32, blocks: u32, adapters: u32) -> u64 {
        let [rows, outputs, sequences, blocks, adapters] =
            [rows, outputs, sequences, blocks, adapters].map(u64::from);
        let adjusted = ADJUSTED as u64 * (blocks * u64::from(BLOCK) + MAX_BIASES as u64);
        // Only sequences with outputs have logits that change.
        let adjusted = adjusted * sequences.min(outputs);
        HEADER as u64
            + rows * ROW as u64
            + 2 * outputs
            + sequences * (blocks + PICK as u64 + adapters)
            + adjusted
    }
}
