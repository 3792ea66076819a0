// Implements interface `kv_write` for f32. The program binds `cache`, an array of KvWord.
#import kv
alias KvWord = f32;
// Writes the i-th number of all keys, or of all values, of a slot. `next` is the one after it, if i is even
// and there is one. Each number of a slot is passed once.
fn write_key(slot: u32, i: u32, number: f32, next: f32) { cache[key_of(slot, i)] = number; }
fn write_value(slot: u32, i: u32, number: f32, next: f32) { cache[value_of(slot, i)] = number; }
