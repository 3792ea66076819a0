//! SentencePiece's file, a protocol buffer
//! (<https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>).

use crate::{
    error::{Error, Result},
    files,
};
use prost::Message;
use std::path::Path;
use tokenizers::AddedToken;

/// The fields of a model that are read, with their numbers in the protocol buffer.
#[derive(Message)]
pub struct Model {
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<Piece>,
    #[prost(message, required, tag = "2")]
    pub trainer: Trainer,
    #[prost(message, required, tag = "3")]
    pub normalizer: Normalizer,
}

#[derive(Message)]
pub struct Piece {
    #[prost(string, tag = "1")]
    pub text: String,
    #[prost(float, tag = "2")]
    pub score: f32,
    #[prost(int32, optional, tag = "3", default = "1")]
    pub kind: Option<i32>,
}

/// A piece's kind: an ordinary text, a special token, or one that users added.
pub const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
pub const USER_DEFINED: i32 = 4;

#[derive(Message)]
pub struct Trainer {
    #[prost(int32, optional, tag = "3", default = "1")]
    pub kind: Option<i32>,
    #[prost(bool, tag = "35")]
    pub byte_fallback: bool,
    #[prost(int32, tag = "40")]
    pub unk_id: i32,
    #[prost(int32, optional, tag = "41", default = "1")]
    pub bos_id: Option<i32>,
    #[prost(int32, optional, tag = "42", default = "2")]
    pub eos_id: Option<i32>,
    #[prost(string, optional, tag = "45", default = "<unk>")]
    pub unk_piece: Option<String>,
    #[prost(string, optional, tag = "46", default = "<s>")]
    pub bos_piece: Option<String>,
    #[prost(string, optional, tag = "47", default = "</s>")]
    pub eos_piece: Option<String>,
}

/// The kinds of a model.
pub const UNIGRAM_MODEL: i32 = 1;
pub const BPE_MODEL: i32 = 2;

#[derive(Message)]
pub struct Normalizer {
    #[prost(bytes = "vec", tag = "2")]
    pub charsmap: Vec<u8>,
    #[prost(bool, optional, tag = "3", default = "true")]
    pub add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    pub remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    pub escape_whitespaces: Option<bool>,
}

impl Model {
    /// Reads a file.
    ///
    /// # Errors
    /// Of the kind Model where the file is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let model = Self::decode(&files::read(path)?[..]).map_err(|e| {
            Error::model(format!("{name} is not a SentencePiece model: {e}; download it again")).because(e)
        })?;
        match model.pieces.is_empty() {
            true => Err(Error::model(format!(
                "{name} is not a SentencePiece model: it holds no pieces; download it again"
            ))),
            false => Ok(model),
        }
    }

    /// The special tokens that the file names, by their roles.
    pub fn roles(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let trainer = &self.trainer;
        let roles = [
            ("bos", trainer.bos_id(), trainer.bos_piece()),
            ("eos", trainer.eos_id(), trainer.eos_piece()),
            ("unk", trainer.unk_id, trainer.unk_piece()),
        ];
        roles.into_iter().filter(|(_, id, _)| *id >= 0).map(|(role, _, piece)| (role, piece))
    }

    /// Whether texts begin with a blank that they do not have.
    pub fn adds_a_blank(&self) -> bool {
        self.normalizer.add_dummy_prefix()
    }

    /// The pieces of these kinds, with their ids.
    pub fn pieces(&self, kinds: &[i32]) -> impl Iterator<Item = (usize, &Piece)> {
        self.pieces.iter().enumerate().filter(|(_, piece)| kinds.contains(&piece.kind()))
    }

    /// The tokens that are matched in a text before it is split, where the settings list none: its special
    /// tokens, and where a class reads the file, also those of users.
    pub fn added(&self, by_file: bool) -> Vec<AddedToken> {
        let kinds: &[i32] = if by_file { &[CONTROL] } else { &[CONTROL, USER_DEFINED] };
        let added = |(_, piece): (usize, &Piece)| {
            AddedToken::from(piece.text.clone(), piece.kind() == CONTROL).normalized(false)
        };
        self.pieces(kinds).map(added).collect()
    }
}
