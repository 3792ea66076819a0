// Implements interface `kv_write` for f32. The program binds `cache`, an array of KvWord.
#import kv
alias KvWord = f32;
// Writes the i-th value of all keys, or of all values, of a slot.
fn write_key(slot: u32, i: u32, value: f32) { cache[key_of(slot, i)] = value; }
fn write_value(slot: u32, i: u32, value: f32) { cache[value_of(slot, i)] = value; }
