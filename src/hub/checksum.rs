//! Checksums, by which the Hub identifies the contents of files.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A checksum of the bytes so far.
pub(super) enum Checksum {
    Sha256(Sha256),
    Git(Sha1),
}

impl Checksum {
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }
    /// The hash by which git identifies a file of `bytes` bytes.
    pub fn git(bytes: u64) -> Self {
        Self::Git(Sha1::new_with_prefix(format!("blob {bytes}\0")))
    }
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Git(sum) => sum.update(bytes),
        }
    }
    pub fn hex(self) -> String {
        let bytes = match self {
            Self::Sha256(sum) => sum.finalize().to_vec(),
            Self::Git(sum) => sum.finalize().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
