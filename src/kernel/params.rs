//! Host twins of the WGSL parameter structs. `tests/shaders.rs` compares every offset with naga's.

use bytemuck::{Pod, Zeroable};

macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[allow(missing_docs, reason = "the WGSL struct of the same name says what each member is")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name { $(pub $field: $type,)* }

        impl $name {
            /// Name and byte offset of every member.
            pub const MEMBERS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field)),)*];
        }
    };
}

params! {
    /// Twin of `Params` in `shaders/params.wgsl`.
    Params {
        batch_begin: u32,
        head_begin: u32,
        head_count: u32,
        q_begin: u32,
        q_end: u32,
        kv_begin: u32,
        kv_end: u32,
        chunk_begin: u32,
        chunk_count: u32,
        workgroups: u32,
        grid_x: u32,
        group_size: u32,
        packed_tiles: u32,
        run_keys: u32,
        part_count: u32,
        part_stride: u32,
        part_lse_stride: u32,
        masked_keys: u32,
        heads: u32,
        seqlen_q: u32,
        seqlen_k: u32,
        tokens_q: u32,
        tokens_k: u32,
        cu_q_offset: u32,
        cu_k_offset: u32,
        causal_offset: i32,
        window_offset: i32,
        window_left: i32,
        window_right: i32,
        alibi_offset: i32,
        alibi_slopes_offset: u32,
        sinks_offset: u32,
        scale: f32,
        softcap: f32,
        negative_infinity: f32,
        dropout_threshold: u32,
        dropout_scale: f32,
        dropout_key_low: u32,
        dropout_key_high: u32,
        dropout_call: u32,
        dropout_offset: u32,
        dropout_batch: u32,
        dropout_head: u32,
        dropout_row: u32,
        padding_offset: u32,
        padding_batch: u32,
        lse_offset: u32,
        lse_batch: u32,
        lse_head: u32,
        block_offset: u32,
        block_batch: u32,
        block_head: u32,
        block_row: u32,
        list_offset: u32,
        list_batch: u32,
        list_head: u32,
        list_row: u32,
        rope_query_offset: i32,
        rope_key_offset: i32,
        query_ids_offset: u32,
        query_ids_batch: u32,
        key_ids_offset: u32,
        key_ids_batch: u32,
        rope_scaling: f32,
        query_offset: u32,
        query_batch: u32,
        query_head: u32,
        query_row: u32,
        key_offset: u32,
        key_batch: u32,
        key_head: u32,
        key_row: u32,
        value_offset: u32,
        value_batch: u32,
        value_head: u32,
        value_row: u32,
        out_offset: u32,
        out_batch: u32,
        out_head: u32,
        out_row: u32,
        scores_offset: u32,
        scores_batch: u32,
        scores_head: u32,
        scores_row: u32,
        mask_offset: u32,
        mask_batch: u32,
        mask_head: u32,
        mask_row: u32,
        mask_key: u32,
        bias_offset: u32,
        bias_batch: u32,
        bias_head: u32,
        bias_row: u32,
        bias_key: u32,
    }
}

params! {
    /// Twin of `MergeParams` in `shaders/merge/lse.wgsl`.
    MergeParams {
        element_begin: u32,
        element_count: u32,
        part_begin: u32,
        part_end: u32,
        out_part_stride: u32,
        lse_part_stride: u32,
        head_dim_v: u32,
        grid_x: u32,
        out_parts_offset: u32,
        lse_parts_offset: u32,
        out_offset: u32,
        lse_offset: u32,
        earlier_lse_offset: u32,
        negative_infinity: f32,
    }
}

params! {
    /// Twin of `RopeParams` in `shaders/rope.wgsl`.
    RopeParams {
        units: u32,
        grid_x: u32,
        batch_begin: u32,
        head_begin: u32,
        head_end: u32,
        row_begin: u32,
        row_count: u32,
        row_units: u32,
        unit_heads: u32,
        head_groups: u32,
        head_dim: u32,
        rotary_pairs: u32,
        position: i32,
        max_positions: u32,
        attention_scaling: f32,
        x_offset: u32,
        x_batch: u32,
        x_head: u32,
        x_row: u32,
        out_offset: u32,
        out_batch: u32,
        out_head: u32,
        out_row: u32,
        ids_offset: u32,
        ids_batch: u32,
        cos_offset: u32,
        sin_offset: u32,
        cache_batch: u32,
    }
}

params! {
    /// Twin of `CopyParams` in `shaders/copy/params.wgsl`.
    CopyParams {
        element_begin: u32,
        element_count: u32,
        grid_x: u32,
        source_offset: u32,
        destination_offset: u32,
    }
}

params! {
    /// Twin of `ScatterParams` in `shaders/tensor_scatter.wgsl`.
    ScatterParams {
        chunks: u32,
        chunks_of_row: u32,
        block_begin: u32,
        row_begin: u32,
        row_count: u32,
        slot_begin: u32,
        slot_end: u32,
        outer: u32,
        cache_len: u32,
        update_len: u32,
        inner: u32,
        grid_x: u32,
        update_offset: u32,
        write_indices_offset: u32,
        present_cache_offset: u32,
    }
}

params! {
    /// Twin of `BlockMaskParams` in `shaders/block_mask.wgsl`.
    BlockMaskParams {
        block_begin: u32,
        blocks: u32,
        grid_x: u32,
        heads: u32,
        q_blocks: u32,
        kv_blocks: u32,
        seqlen_q: u32,
        seqlen_k: u32,
        states_offset: u32,
    }
}
