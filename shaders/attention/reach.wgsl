// Implements interface `reach`: the positions that a row attends to, from `start` up to but not including
// `end`. A window of 0 means no window.
struct Reach { start: u32, end: u32 }
fn reach(row: Row, window: u32) -> Reach {
    let own = row.position + 1u;
    return Reach(select(0u, own - min(own, window), window > 0u), row.attends_to + 1u);
}
