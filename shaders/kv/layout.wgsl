// Implements interface `kv`: the layout of a part of a KV cache. A slot holds the keys of all heads of the
// part, then their values.
override KV_WIDTH: u32; // numbers in all keys (or values) of a slot

// The index in the cache of a slot's key, or value, for the head that starts at number `head` of all keys,
// counted in numbers.
fn key_of(slot: u32, head: u32) -> u32 { return slot * 2u * KV_WIDTH + head; }
fn value_of(slot: u32, head: u32) -> u32 { return slot * 2u * KV_WIDTH + KV_WIDTH + head; }
