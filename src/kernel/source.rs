//! Shader text: the parts that kernels are made of, and the one composer that joins and unrolls them.
//!
//! A kernel is directives for the compiler that will read it, a header of constants, and whole files in a row, each plain WGSL.
//! Nothing is substituted inside a file. The composer does one thing more: a loop written `/*unroll*/ for (var d = 0u; d < D4; d++) { … }`, whose bound is
//! a constant of the header, becomes one block a trip, each opening with `const d: u32 = 3u;`.

use std::fmt::Write as _;

use crate::kernel::{FIRST_CAPTURE, KernelConfig};

/// How a shader uses a binding.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Access {
    /// `var<uniform>`.
    Uniform,
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// A part of WGSL that is not in every implementation.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Extension {
    /// The type `f16`.
    F16,
    /// The built-in functions and values that begin with `subgroup`.
    Subgroups,
    /// Branches on what a subgroup operation gives: the same for all lanes of a subgroup, which compilers by the standard do not see.
    SubgroupBranches,
    /// The type `u64`, which is naga's own.
    Int64,
    /// Types and functions that begin with `coop`, which are naga's own.
    Matrices,
}

impl Extension {
    /// All of them.
    pub const ALL: [Extension; 5] = [
        Extension::F16,
        Extension::Subgroups,
        Extension::SubgroupBranches,
        Extension::Int64,
        Extension::Matrices,
    ];

    /// Whether a dialect has it at all.
    pub fn is_in(self, dialect: Dialect) -> bool {
        !matches!(self, Extension::Int64 | Extension::Matrices) || dialect == Dialect::Native
    }

    /// The line that switches it on, where the dialect wants one.
    pub fn directive(self, dialect: Dialect) -> Option<&'static str> {
        match (self, dialect) {
            (Extension::F16, _) => Some("enable f16;"),
            (Extension::Subgroups, Dialect::Web) => Some("enable subgroups;"),
            // naga 30 has the functions without the line, and refuses the line.
            (Extension::Subgroups, Dialect::Native) => None,
            (Extension::SubgroupBranches, Dialect::Web) => Some("diagnostic(off, subgroup_uniformity);"),
            // naga does not look for such branches, and would warn that it does not know what the line is about.
            (Extension::SubgroupBranches, Dialect::Native) => None,
            (Extension::Int64, _) => None,
            // naga takes the number of a subgroup for one that differs within it, and refuses products in a branch on it.
            (Extension::Matrices, _) => {
                Some("enable wgpu_cooperative_matrix;\ndiagnostic(off, derivative_uniformity);")
            }
        }
    }
}

/// Whose WGSL: compilers agree on everything but the directives.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Dialect {
    /// naga's, which wgpu has for Vulkan, Metal and DX12.
    Native,
    /// The standard's, which browsers and Dawn hold to.
    Web,
}

impl Default for Dialect {
    /// That of the machine compiled for: on wasm32, wgpu hands the text to the browser.
    fn default() -> Self {
        if cfg!(target_arch = "wasm32") {
            Dialect::Web
        } else {
            Dialect::Native
        }
    }
}

/// One shader file.
#[derive(Debug)]
pub struct Part {
    /// Its path below `shaders/`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The bindings that it declares.
    pub bindings: &'static [(u32, Access)],
    /// The extensions that it uses.
    pub needs: &'static [Extension],
}

macro_rules! parts {
    ($($name:literal [$($binding:literal $access:ident),*] $(needs $($extension:ident),+)?;)*) => {
        /// Every shader file there is.
        pub const PARTS: &[Part] = &[$(Part {
            name: $name,
            text: include_str!(concat!("../../shaders/", $name)),
            bindings: &[$(($binding, Access::$access)),*],
            needs: &[$($(Extension::$extension),+)?],
        }),*];
    };
}

/// A number that changes with the text of any shader file: FNV-1a, 64 bits, over names and texts.
pub fn fingerprint() -> u64 {
    let bytes = PARTS
        .iter()
        .flat_map(|part| [part.name, part.text])
        .flat_map(str::bytes);
    fnv(bytes)
}

/// FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

parts! {
    "average_heads.wgsl" [4 ReadWrite, 6 Read];
    "broadcast.wgsl" [] needs Subgroups;
    "broadcast/order_free.wgsl" [];
    "broadcast/order_kept.wgsl" [];
    "broadcast/own_row.wgsl" [];
    "broadcast/own_rows_rolled.wgsl" [];
    "broadcast/own_rows_unrolled.wgsl" [];
    "broadcast/rounds_finite.wgsl" [] needs Subgroups, SubgroupBranches;
    "broadcast/rounds_one.wgsl" [];
    "broadcast/weigh_rolled.wgsl" [];
    "broadcast/weigh_unrolled.wgsl" [];
    "block/aligned.wgsl" [];
    "block/lookup.wgsl" [15 Read];
    "block/none.wgsl" [];
    "block/states.wgsl" [];
    "block_mask.wgsl" [0 Uniform, 1 ReadWrite];
    "dropout/given.wgsl" [14 Read];
    "dropout/none.wgsl" [];
    "dropout/philox.wgsl" [];
    "emit/score.wgsl" [6 ReadWrite];
    "emit/stage.wgsl" [6 ReadWrite];
    "emit/weight.wgsl" [5 Read, 6 ReadWrite];
    "copy.wgsl" [1 Read, 2 ReadWrite];
    "copy/params.wgsl" [0 Uniform];
    "copy_wide.wgsl" [1 Read, 2 ReadWrite];
    "fused.wgsl" [];
    "join.wgsl" [21 Read, 22 Read];
    "linear.wgsl" [6 ReadWrite];
    "load/key_bf16_scalar.wgsl" [2 Read];
    "load/key_bf16_vec4.wgsl" [2 Read];
    "load/key_bf16_wide.wgsl" [2 Read] needs Int64;
    "load/key_f16_native_scalar.wgsl" [2 Read] needs F16;
    "load/key_f16_native_vec4.wgsl" [2 Read] needs F16;
    "load/key_f16_scalar.wgsl" [2 Read];
    "load/key_f16_vec4.wgsl" [2 Read];
    "load/key_f16_wide.wgsl" [2 Read] needs Int64;
    "load/key_f32_scalar.wgsl" [2 Read];
    "load/key_f32_vec4.wgsl" [2 Read];
    "load/key_f32_wide.wgsl" [2 Read] needs Int64;
    "load/query_bf16_scalar.wgsl" [1 Read];
    "load/query_bf16_vec4.wgsl" [1 Read];
    "load/query_bf16_wide.wgsl" [1 Read] needs Int64;
    "load/query_f16_native_scalar.wgsl" [1 Read] needs F16;
    "load/query_f16_native_vec4.wgsl" [1 Read] needs F16;
    "load/query_f16_scalar.wgsl" [1 Read];
    "load/query_f16_vec4.wgsl" [1 Read];
    "load/query_f16_wide.wgsl" [1 Read] needs Int64;
    "load/query_f32_scalar.wgsl" [1 Read];
    "load/query_f32_vec4.wgsl" [1 Read];
    "load/query_f32_wide.wgsl" [1 Read] needs Int64;
    "load/value_bf16_scalar.wgsl" [3 Read];
    "load/value_bf16_vec4.wgsl" [3 Read];
    "load/value_bf16_wide.wgsl" [3 Read] needs Int64;
    "load/value_f16_native_scalar.wgsl" [3 Read] needs F16;
    "load/value_f16_native_vec4.wgsl" [3 Read] needs F16;
    "load/value_f16_scalar.wgsl" [3 Read];
    "load/value_f16_vec4.wgsl" [3 Read];
    "load/value_f16_wide.wgsl" [3 Read] needs Int64;
    "load/value_f32_scalar.wgsl" [3 Read];
    "load/value_f32_vec4.wgsl" [3 Read];
    "load/value_f32_wide.wgsl" [3 Read] needs Int64;
    "mask/boolean.wgsl" [7 Read];
    "mask/boolean_none.wgsl" [];
    "mask/causal.wgsl" [];
    "mask/causal_none.wgsl" [];
    "mask/padding_additive.wgsl" [9 Read];
    "mask/padding_boolean.wgsl" [9 Read];
    "mask/padding_none.wgsl" [];
    "mask/window.wgsl" [];
    "mask/window_none.wgsl" [];
    "matrix.wgsl" [] needs Subgroups, Matrices;
    "matrix/guard_closed.wgsl" [];
    "matrix/guard_none.wgsl" [];
    "matrix/halves_16.wgsl" [] needs F16, Matrices;
    "matrix/halves_8.wgsl" [] needs F16, Matrices;
    "matrix/own.wgsl" [];
    "matrix/query_memory.wgsl" [] needs Matrices;
    "matrix/query_registers.wgsl" [] needs Matrices;
    "matrix/scores.wgsl" [] needs Matrices;
    "matrix/self_test.wgsl" [1 Read, 2 ReadWrite] needs Subgroups, Matrices;
    "matrix/singles_8.wgsl" [] needs Matrices;
    "matrix/stage.wgsl" [];
    "matrix/step.wgsl" [];
    "matrix/values.wgsl" [] needs Matrices;
    "mods/environment.wgsl" [];
    "mods/mask_mod.wgsl" [];
    "mods/mask_mod_none.wgsl" [];
    "mods/prob_mod.wgsl" [];
    "mods/prob_mod_none.wgsl" [];
    "mods/score_mod.wgsl" [];
    "mods/score_mod_none.wgsl" [];
    "narrow.wgsl" [16 Read];
    "merge/earlier.wgsl" [5 Read];
    "merge/earlier_none.wgsl" [];
    "merge/lse.wgsl" [0 Uniform, 2 Read, 4 ReadWrite];
    "merge_states.wgsl" [1 Read, 3 ReadWrite];
    "merge_states_wide.wgsl" [1 Read, 3 ReadWrite];
    "params.wgsl" [0 Uniform];
    "position.wgsl" [];
    "rope/angle_by_position.wgsl" [5 Read, 6 Read];
    "rope/angle_by_row.wgsl" [5 Read, 6 Read];
    "rope/angle_frequency.wgsl" [4 Read];
    "rope/half_split.wgsl" [];
    "rope/key_ids.wgsl" [20 Read];
    "rope/key_none.wgsl" [];
    "rope/key_offset.wgsl" [];
    "rope/key_turned.wgsl" [];
    "rope/query_ids.wgsl" [19 Read];
    "rope/query_none.wgsl" [];
    "rope/query_offset.wgsl" [];
    "rope/query_turned.wgsl" [];
    "rope/steps.wgsl" [18 Read];
    "rope/turn.wgsl" [];
    "rope/interleaved.wgsl" [];
    "rope/out_adjacent.wgsl" [1 ReadWrite];
    "rope/out_columns.wgsl" [1 ReadWrite];
    "rope/out_each.wgsl" [1 ReadWrite];
    "rope/out_halves.wgsl" [1 ReadWrite];
    "rope/position_ids.wgsl" [3 Read];
    "rope/position_offset.wgsl" [];
    "rope/x_in_place.wgsl" [];
    "rope/x_operand.wgsl" [2 Read];
    "rope.wgsl" [0 Uniform];
    "row/acc_fresh.wgsl" [];
    "row/acc_resume.wgsl" [];
    "row/add_guarded.wgsl" [];
    "row/add_plain.wgsl" [];
    "row/lse.wgsl" [5 ReadWrite];
    "row/lse_none.wgsl" [];
    "row/out_bf16_scalar.wgsl" [4 ReadWrite];
    "row/out_bf16_vec4.wgsl" [4 ReadWrite];
    "row/out_bf16_wide.wgsl" [4 ReadWrite] needs Int64;
    "row/out_f16_scalar.wgsl" [4 ReadWrite];
    "row/out_f16_vec4.wgsl" [4 ReadWrite];
    "row/out_f16_wide.wgsl" [4 ReadWrite] needs Int64;
    "row/out_f32_scalar.wgsl" [4 ReadWrite];
    "row/out_f32_vec4.wgsl" [4 ReadWrite];
    "row/out_f32_wide.wgsl" [4 ReadWrite] needs Int64;
    "row/state_fresh.wgsl" [];
    "row/state_resume.wgsl" [];
    "row/state_sink.wgsl" [10 Read];
    "score/alibi.wgsl" [11 Read];
    "score/alibi_none.wgsl" [];
    "score/bias_bf16.wgsl" [8 Read];
    "score/bias_f16.wgsl" [8 Read];
    "score/bias_f32.wgsl" [8 Read];
    "scatter/indices.wgsl" [2 Read];
    "scatter/indices_none.wgsl" [];
    "scatter/vectors.wgsl" [1 Read, 3 ReadWrite];
    "scatter/words.wgsl" [1 Read, 3 ReadWrite];
    "score/bias_none.wgsl" [];
    "score/finish.wgsl" [];
    "score/finish_bounds.wgsl" [];
    "score/open.wgsl" [];
    "score/softcap.wgsl" [];
    "score/softcap_none.wgsl" [];
    "scores.wgsl" [];
    "sequence/lengths.wgsl" [9 Read];
    "sequence/packed.wgsl" [12 Read, 13 Read];
    "sequence/whole.wgsl" [];
    "softmax.wgsl" [6 ReadWrite];
    "split.wgsl" [];
    "split/lanes_subgroup.wgsl" [] needs Subgroups;
    "split/lanes_workgroup.wgsl" [];
    "split/out.wgsl" [];
    "split/parts.wgsl" [21 ReadWrite, 22 ReadWrite];
    "split/shares_memory.wgsl" [];
    "split/shares_none.wgsl" [];
    "split/shares_shuffled.wgsl" [] needs Subgroups;
    "state.wgsl" [];
    "storage.wgsl" [];
    "tensor_scatter.wgsl" [0 Uniform];
    "tile_lists.wgsl" [17 ReadWrite];
    "tile/finish.wgsl" [];
    "tile/guard_closed.wgsl" [];
    "tile/guard_none.wgsl" [];
    "tile/kinds.wgsl" [];
    "tile/kv_f16.wgsl" [] needs F16;
    "tile/kv_f32.wgsl" [];
    "tile/loops_apart.wgsl" [];
    "tile/loops_one.wgsl" [];
    "tile/query_f16.wgsl" [] needs F16;
    "tile/query_f32.wgsl" [];
    "tile/query_resident.wgsl" [];
    "tile/query_streamed.wgsl" [];
    "tile/rows_shared.wgsl" [];
    "tile/rows_shuffled.wgsl" [] needs Subgroups;
    "tile/scores.wgsl" [];
    "tile/step.wgsl" [];
    "tile/values.wgsl" [];
    "tile/values_memory.wgsl" [];
    "type/narrow_bf16.wgsl" [];
    "type/narrow_f16.wgsl" [];
    "uniform.wgsl" [];
    "visit/list.wgsl" [17 Read];
    "visit/range.wgsl" [];
    "visit/states.wgsl" [];
    "weighted_values.wgsl" [6 Read];
}

/// The part of this name.
pub fn part(name: &str) -> Option<&'static Part> {
    PARTS.iter().find(|part| part.name == name)
}

/// Whether `/*unroll*/` loops are expanded. Only tests leave them rolled, to show that both compute the same.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Unroll {
    /// One block a trip.
    #[default]
    Expanded,
    /// The text as it stands in the files.
    Rolled,
}

/// The WGSL of a kernel.
///
/// # Errors
/// A sentence that names the loop, when an `/*unroll*/` mark is not followed by a loop of the one form that is expanded.
pub fn compose(config: &KernelConfig, unroll: Unroll, dialect: Dialect) -> Result<String, String> {
    let mut text = String::new();
    for directive in config
        .extensions()
        .iter()
        .filter_map(|extension| extension.directive(dialect))
    {
        let _ = writeln!(text, "{directive}");
    }
    for (name, value) in config.constants() {
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    for part in config.parts() {
        let body = match unroll {
            Unroll::Expanded => expand(part.text, config.constants()).map_err(|why| format!("{}: {why}", part.name))?,
            Unroll::Rolled => part.text.to_owned(),
        };
        let _ = write!(text, "\n// ---- {} ----\n{body}", part.name);
    }
    text.push_str(&captures(config));
    for (name, body) in config.mods() {
        let _ = write!(text, "\n// ---- {name} of the caller ----\n{body}\n");
    }
    Ok(text)
}

/// One of the caller's own functions with nothing but what it may use, to find what is wrong with it. It comes first, so that
/// the compiler counts its lines as the caller does.
pub(crate) fn alone(config: &KernelConfig, body: &str) -> String {
    let environment = part("mods/environment.wgsl").map_or("", |part| part.text);
    format!("{body}\n{environment}{}", captures(config))
}

/// The declarations of the captures, a line each.
fn captures(config: &KernelConfig) -> String {
    let mut text = String::new();
    for (binding, capture) in (FIRST_CAPTURE..).zip(config.captures()) {
        let (name, element) = (&capture.name, capture.element.wgsl());
        let _ = writeln!(
            text,
            "@group(0) @binding({binding}) var<storage, read> {name}: array<{element}>;"
        );
    }
    text
}

const MARK: &str = "/*unroll*/";

/// Expands each marked loop, the outer ones first.
fn expand(text: &str, constants: &[(&'static str, u32)]) -> Result<String, String> {
    let Some(at) = text.find(MARK) else {
        return Ok(text.to_owned());
    };
    let (before, marked) = text.split_at(at);
    let (head, rest) = marked[MARK.len()..].split_once('{').ok_or("a mark without a loop")?;
    let (variable, bound) = loop_head(head).ok_or_else(|| format!("cannot unroll `{}`", head.trim()))?;
    let trips = match bound.strip_suffix('u').and_then(|digits| digits.parse().ok()) {
        Some(literal) => literal,
        None => *constants
            .iter()
            .find_map(|(name, value)| (*name == bound).then_some(value))
            .ok_or_else(|| format!("the bound `{bound}` of an unrolled loop is no constant of the header"))?,
    };
    let end = closing_brace(rest).ok_or_else(|| format!("no end to the loop `{}`", head.trim()))?;
    let (body, after) = (&rest[..end], &rest[end + 1..]);
    let body = expand(body, constants)?;
    let mut expanded = String::from(before);
    for trip in 0..trips {
        let _ = write!(expanded, "{{ const {variable}: u32 = {trip}u;{body}}} ");
    }
    expanded.push_str(&expand(after, constants)?);
    Ok(expanded)
}

/// `for (var d = 0u; d < BOUND; d++)` to (`d`, `BOUND`).
fn loop_head(head: &str) -> Option<(&str, &str)> {
    let head = head.trim().strip_prefix("for (var ")?.strip_suffix(')')?;
    let (start, rest) = head.split_once("; ")?;
    let (condition, step) = rest.split_once("; ")?;
    let variable = start.strip_suffix(" = 0u")?;
    let bound = condition.strip_prefix(variable)?.strip_prefix(" < ")?;
    (step.strip_prefix(variable)? == "++").then_some((variable, bound))
}

/// Where the brace lies that closes a block whose opening brace has been read; braces in line comments do not count.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 1;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = line.split("//").next().unwrap_or_default();
        for (column, character) in code.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(start + column);
            }
        }
        start += line.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSTANTS: &[(&str, u32)] = &[("N", 2), ("M", 3)];

    #[test]
    fn nested_loops_become_blocks() {
        let text = "a;\n/*unroll*/ for (var i = 0u; i < N; i++) {\n /*unroll*/ for (var j = 0u; j < 1u; j++) { f(i, j); }\n}\nb;";
        let expanded = expand(text, CONSTANTS).unwrap();
        let squeezed: String = expanded.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            squeezed,
            "a; { const i: u32 = 0u; { const j: u32 = 0u; f(i, j); } } { const i: u32 = 1u; { const j: u32 = 0u; f(i, j); } } b;"
        );
    }

    #[test]
    fn braces_in_comments_do_not_count() {
        let expanded = expand("/*unroll*/ for (var i = 0u; i < N; i++) { // }\n f(); }", CONSTANTS).unwrap();
        assert_eq!(expanded.matches("f();").count(), 2);
    }

    #[test]
    fn what_cannot_be_unrolled_is_an_error() {
        for text in [
            "/*unroll*/ for (var i = 1u; i < N; i++) {}",
            "/*unroll*/ for (var i = 0u; i < UNKNOWN; i++) {}",
            "/*unroll*/ while (true) {}",
            "/*unroll*/ for (var i = 0u; i < N; i++) { f();",
            "/*unroll*/",
        ] {
            assert!(expand(text, CONSTANTS).is_err(), "{text}");
        }
    }
}
