//! Makes GGUF files for the tests, byte by byte.

use wgpt::weights::Format;

/// Where in a block f16 numbers lie.
fn halves(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => &[0, 2],
        Format::Q2_K => &[80, 82],
        Format::Q3_K => &[108],
        Format::Q6_K => &[208],
        Format::MXFP4 => &[],
        _ => &[0],
    }
}

/// Writes a GGUF file, byte by byte.
pub struct Writer {
    header: Vec<u8>,
    infos: Vec<u8>,
    data: Vec<u8>,
    tensors: u64,
    entries: u64,
    state: u64,
}

impl Writer {
    pub fn new() -> Self {
        Self { header: Vec::new(), infos: Vec::new(), data: Vec::new(), tensors: 0, entries: 0, state: 1 }
    }
    fn string(to: &mut Vec<u8>, text: &str) {
        to.extend((text.len() as u64).to_le_bytes());
        to.extend(text.as_bytes());
    }
    fn key(&mut self, key: &str, kind: u32) {
        Self::string(&mut self.header, key);
        self.header.extend(kind.to_le_bytes());
        self.entries += 1;
    }
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        Self::string(&mut self.header, value);
    }
    pub fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.header.extend(value.to_le_bytes());
    }
    pub fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.header.extend(value.to_le_bytes());
    }
    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.key(key, 9);
        self.header.extend(8u32.to_le_bytes());
        self.header.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| Self::string(&mut self.header, value));
    }
    pub fn floats(&mut self, key: &str, values: &[f32]) {
        self.key(key, 9);
        self.header.extend(6u32.to_le_bytes());
        self.header.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| self.header.extend(value.to_le_bytes()));
    }
    fn random(&mut self) -> u8 {
        self.state = self.state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.state >> 56) as u8
    }
    /// A tensor of random blocks whose scales are small.
    pub fn tensor(&mut self, name: &str, format: Format, rows: u64, columns: u64) {
        let kinds = [
            "f32", "f16", "q4_0", "q4_1", "", "", "q5_0", "q5_1", "q8_0", "", "q2_k", "q3_k", "q4_k", "q5_k",
            "q6_k",
        ];
        let kind = match format {
            Format::IQ4_NL => 20,
            Format::BF16 => 30,
            Format::MXFP4 => 39,
            _ => kinds.iter().position(|kind| *kind == format.name()).expect("a type") as u32,
        };
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        Self::string(&mut self.infos, name);
        let dimensions = if rows == 1 { vec![columns] } else { vec![columns, rows] };
        self.infos.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|n| self.infos.extend(n.to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend((self.data.len() as u64).to_le_bytes());
        self.tensors += 1;
        if format == Format::F32 {
            for _ in 0..rows * columns {
                let value = 1.0 + f32::from(self.random()) / 1000.0;
                self.data.extend(value.to_le_bytes());
            }
            return;
        }
        for _ in 0..rows as usize * columns as usize / format.block_values() {
            let at = self.data.len();
            for _ in 0..format.block_bytes() {
                let byte = self.random();
                self.data.push(byte);
            }
            for half in halves(format) {
                // ± 2^-11 or so, and less in blocks of 256, which have scales beside it.
                let exponent = if format.block_values() == 256 { 0x00 } else { 0x10 };
                let (low, sign) = (self.random(), self.random() & 0x80);
                self.data[at + half..at + half + 2].copy_from_slice(&[low, exponent | sign]);
            }
            if format == Format::MXFP4 {
                self.data[at] = 119;
            }
        }
    }
    pub fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend(self.tensors.to_le_bytes());
        file.extend(self.entries.to_le_bytes());
        file.extend(self.header);
        file.extend(self.infos);
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(self.data);
        file
    }
}
