// interface `reach`: which positions a row sees.
struct Reach { start: u32, end: u32 }
fn reach(row: Row, window: u32) -> Reach {
    let own = row.position + 1u;
    return Reach(select(0u, own - min(own, window), window > 0u), row.sees + 1u);
}
