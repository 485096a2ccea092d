// Purpose: each lane has whole keys (SHARE is 1). Hook of slot `shares`: defines add_shares.

fn add_shares(scores: ptr<function, array<f32, ROWS * KEYS>>, lane: u32) {}
