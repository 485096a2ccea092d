// Purpose: from query · key to the score that softmax sees: scale, softcap, score_mod, biases, masks, appended keys. Uses the
// hooks of slots `softcap`, `score_mod`, `alibi`, `bias`, `padding`, `causal`, `window`, `mask` and `block`. STAGE, a
// constant of the header, ends the way early where somebody wants the score of that stage.

const STAGE_SCALED: u32 = 1u;
const STAGE_CAPPED: u32 = 2u;
const STAGE_BIASED: u32 = 3u;

fn finish_score(product: f32, position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> f32 {
    // Rows and keys past the end are never read or written, but their lanes compute: keep their loads within bounds.
    let i = min(q_idx, position.q_last);
    let j = min(kv_idx, position.sequence.kv_end - 1u);
    let batch = position.batch;
    let head = position.head;
    var score = product * params.scale;
    if (STAGE == STAGE_SCALED) {
        return score;
    }
    score = cap_score(score);
    if (STAGE == STAGE_CAPPED) {
        return score;
    }
    var open = true;
    if (j < params.masked_keys) {
        score = modify_score(score, position, i, j);
        let added = bias_score(batch, head, i, j);
        // By `&`, which asks all: each `&&` would be a branch, and loads behind branches.
        open = modified_open(score) & bias_open(added) & causal_open(position, i, j) & window_open(position, i, j)
            & mask_open(batch, head, i, j) & padding_open(batch, j) & block_allows(position, i, j, wholly_open);
        score = score + alibi_score(position, i, j) + added + padding_score(batch, j);
    }
    return select(CLOSED, open_score(score), open & (kv_idx < position.sequence.kv_end));
}
