//! Tiles chosen by measuring: plans use them where they fit and say so, every one of them computes the same, and the files that keep
//! them, and the driver's compiled kernels, are used only where they are whole and of this device.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use support::run;
use wgpu_attention::plan::Lse;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DeviceCaps, DeviceClass, Engine,
    EngineDescriptor, Error, Family, PipelineFolder, Plan, Problem, QueryRows, Tier, TunedChoice, TunedTile, Tuning,
    TuningClass, TuningSource,
};

const SHAPE: AttentionShape = AttentionShape::new(1, 8, 512, 512, 64);

/// What Mesa's software driver reports.
fn software() -> DeviceCaps {
    let mut caps = DeviceCaps {
        name: "llvmpipe (LLVM 15.0.6, 256 bits)".into(),
        backend: "vulkan".into(),
        driver: "llvmpipe Mesa 22.3.6".into(),
        class: DeviceClass::Cpu,
        tier: Tier::Extended,
        subgroup_sizes: Some((8, 8)),
        ..Default::default()
    };
    caps.limits.max_workgroup_bytes = 32 << 10;
    caps
}

fn descriptor(shape: AttentionShape) -> AttentionDescriptor<'static> {
    AttentionDescriptor {
        shape,
        ..Default::default()
    }
}

fn problem(shape: AttentionShape) -> Problem {
    Problem::new(&descriptor(shape)).unwrap()
}

/// A measurement of the class of a problem.
fn choice(problem: &Problem, tile: TunedTile) -> TunedChoice {
    TunedChoice {
        date: "2026-11-25".into(),
        class: TuningClass::of(problem),
        tile,
        median_ms: 1.5,
        default_ms: 2.0,
    }
}

fn tuned(caps: &DeviceCaps, problem: &Problem, tile: TunedTile) -> DeviceCaps {
    let choices = vec![choice(problem, tile)];
    DeviceCaps {
        tuning: Some(Arc::new(Tuning { choices })),
        ..caps.clone()
    }
}

fn row(row: &str, tile_q: u32) -> TunedTile {
    TunedTile::Tile {
        row: row.into(),
        tile_q,
    }
}

// ---- Plans -------------------------------------------------------------------------------------------------------------

#[test]
fn a_measured_tile_is_used_and_shown() {
    let decode = AttentionShape {
        kv_heads: 2,
        ..AttentionShape::new(1, 8, 1, 4096, 64)
    };
    let split = |workgroups| TunedTile::Split {
        rows: 2,
        keys: 1,
        workgroups,
    };
    let cases = [
        (SHAPE, row("32x32 streamed", 16), Family::Tile, 16),
        (SHAPE, TunedTile::Broadcast { rows: 3 }, Family::Broadcast, 24),
        (SHAPE, TunedTile::Uniform, Family::Uniform, 64),
        (decode, split(16), Family::Split, 2),
        (
            AttentionShape { heads: 32, ..decode },
            TunedTile::Broadcast { rows: 1 },
            Family::Broadcast,
            8,
        ),
    ];
    for (shape, tile, family, tile_q) in cases {
        let problem = problem(shape);
        let plan = Plan::new(&problem, &tuned(&software(), &problem, tile.clone())).unwrap();
        assert_eq!(plan.tuned(), Some(&tile));
        assert_eq!((plan.tile().family, plan.tile().tile_q), (family, tile_q), "{plan}");
        let text = plan.to_string();
        let line = format!(
            "tuned on 2026-11-25 for {}: {tile} took 0.75 of the time",
            TuningClass::of(&problem)
        );
        assert!(text.contains(&line), "{text}");
        assert!(plan.passes().iter().all(|pass| pass.lse == Lse::None));
    }
    // More workgroups are more runs of keys.
    let problem = problem(decode);
    let runs = |workgroups| {
        let plan = Plan::new(&problem, &tuned(&software(), &problem, split(workgroups))).unwrap();
        plan.passes()[0].runs.count
    };
    assert_eq!([runs(8), runs(16), runs(64)], [2, 4, 16]);
}

/// What a file says may be anything: it is taken only by the rules of the built-in rows.
#[test]
fn a_tile_that_does_not_fit_leaves_the_built_in_choice() {
    let split = |rows, keys, workgroups| TunedTile::Split { rows, keys, workgroups };
    let broadcast = |rows| TunedTile::Broadcast { rows };
    let decode = AttentionShape::new(1, 8, 4, 4096, 64);
    let wide = AttentionShape::new(1, 8, 512, 512, 264);
    let portable = software().at_most(Tier::Portable);
    let without_subgroups = DeviceCaps {
        subgroup_sizes: Some((8, 32)),
        ..software()
    };
    let cases = [
        (software(), SHAPE, row("no such row", 32)),
        (software(), SHAPE, row("32x32 resident", 0)),
        (software(), SHAPE, row("32x32 resident", 12)),
        (software(), SHAPE, row("32x32 resident", u32::MAX)),
        // Needs more workgroup memory than there is.
        (software(), wide, row("32x32 resident", 64)),
        (portable.clone(), SHAPE, row("32x32 resident", 32)),
        (software(), SHAPE, broadcast(0)),
        (software(), SHAPE, broadcast(5)),
        (software(), SHAPE, broadcast(u32::MAX)),
        (software(), wide, broadcast(1)),
        (software(), wide, TunedTile::Uniform),
        (software().at_most(Tier::Portable), SHAPE, TunedTile::Uniform),
        (portable, SHAPE, broadcast(1)),
        (without_subgroups, SHAPE, broadcast(1)),
        (software(), decode, split(0, 1, 32)),
        (software(), decode, split(1, 0, 32)),
        (software(), decode, split(1, 3, 32)),
        (software(), decode, split(1, 1, 0)),
        (software(), decode, split(1, 1, 33)),
        (software(), decode, split(u32::MAX, 4, 32)),
        // 8 rows x 4 keys of 32 vec4.
        (software(), decode, split(8, 4, 32)),
    ];
    for (caps, shape, tile) in cases {
        let problem = problem(shape);
        let plan = Plan::new(&problem, &tuned(&caps, &problem, tile.clone())).unwrap();
        assert_eq!(plan, Plan::new(&problem, &caps).unwrap(), "{tile}");
        assert_eq!(plan.tuned(), None);
        assert!(!TunedTile::candidates(&problem, &caps).contains(&tile), "{tile}");
    }
}

#[test]
fn a_measurement_speaks_for_its_class_only() {
    let caps = tuned(&software(), &problem(SHAPE), row("32x32 streamed", 16));
    let is_tuned = |caps: &DeviceCaps, descriptor: &AttentionDescriptor<'_>| {
        let plan = Plan::new(&Problem::new(descriptor).unwrap(), caps).unwrap();
        plan.tuned().is_some()
    };
    let plain = descriptor(SHAPE);
    assert!(is_tuned(&caps, &plain));
    let near = AttentionShape {
        head_dim_v: 40,
        ..AttentionShape::new(3, 5, 300, 700, 33)
    };
    assert!(is_tuned(&caps, &descriptor(near)));
    let others = [
        AttentionShape { seqlen_q: 256, ..SHAPE },
        AttentionShape { head_dim: 65, ..SHAPE },
        AttentionShape {
            head_dim: 32,
            head_dim_v: 32,
            ..SHAPE
        },
    ];
    for shape in others {
        assert!(!is_tuned(&caps, &descriptor(shape)), "{shape:?}");
    }
    let causal = AttentionDescriptor {
        causal: Some(CausalAlignment::LowerRight),
        ..plain.clone()
    };
    // A mask is loaded for each score, which the measured problem did not.
    let masked = AttentionDescriptor {
        mask: Some(Broadcast::new([1, 1, 512, 512])),
        ..plain.clone()
    };
    let three_kernels = AttentionDescriptor {
        algorithm: Algorithm::ThreeKernels,
        ..plain.clone()
    };
    // Done before a longer text were compiled.
    let small = descriptor(AttentionShape::new(1, 1, 300, 300, 33));
    for descriptor in [causal, masked, three_kernels, small] {
        assert!(!is_tuned(&caps, &descriptor), "{descriptor:?}");
    }
    let forced = |family| DeviceCaps {
        only_family: Some(family),
        ..caps.clone()
    };
    assert!(is_tuned(&forced(Family::Tile), &plain));
    assert!(!is_tuned(&forced(Family::Broadcast), &plain));
    // The first of a class counts.
    let tuning = Tuning {
        choices: [16, 8]
            .map(|tile_q| choice(&problem(SHAPE), row("32x32 streamed", tile_q)))
            .to_vec(),
    };
    let class = TuningClass::of(&problem(SHAPE));
    assert_eq!(class.to_string(), "many-64-f32");
    assert_eq!(class.query_rows, QueryRows::Many);
    assert_eq!(tuning.choice(&class).unwrap().tile, row("32x32 streamed", 16));
}

// ---- Kernels -----------------------------------------------------------------------------------------------------------

/// Whatever may be chosen computes what the reference says, on every adapter and tier.
#[test]
fn every_candidate_agrees_with_the_reference() {
    let few = AttentionShape {
        kv_heads: 2,
        ..AttentionShape::new(1, 8, 7, 4900, 20)
    };
    for (name, engine) in engines() {
        for shape in [few, AttentionShape::new(1, 3, 277, 315, 20)] {
            let descriptor = AttentionDescriptor {
                causal: Some(CausalAlignment::LowerRight),
                ..descriptor(shape)
            };
            let problem = Problem::new(&descriptor).unwrap();
            let candidates = TunedTile::candidates(&problem, engine.caps());
            assert!(candidates.len() >= 3, "{candidates:?}");
            // How many workgroups there are is no matter of the kernel: one of each pair of rows and keys suffices, but for one.
            let wanted = |tile: &TunedTile| match *tile {
                TunedTile::Split { rows, keys, workgroups } => workgroups == 32 || (rows, keys) == (2, 2),
                _ => true,
            };
            for tile in candidates.into_iter().filter(wanted) {
                let choices = vec![choice(&problem, tile.clone())];
                let engine = engine.with_tuning(Some(Arc::new(Tuning { choices })));
                assert_eq!(engine.plan(&descriptor).unwrap().tuned(), Some(&tile), "{name}");
                run::check(&format!("{name}, {tile}"), &engine, &descriptor, 3);
            }
        }
    }
}

/// Every adapter present, at every tier that it has.
fn engines() -> Vec<(String, Engine)> {
    let mut engines = Vec::new();
    for adapter in wgpu_attention::adapters(None) {
        let engine = pollster::block_on(Engine::from_adapter(&adapter)).unwrap();
        let name = engine.caps().name.clone();
        for tier in Tier::ALL.into_iter().filter(|&tier| tier <= engine.caps().tier) {
            engines.push((format!("{name} ({tier})"), engine.at_most(tier)));
        }
    }
    assert!(!engines.is_empty(), "no adapter: run tools/ensure-vulkan.sh");
    engines
}

// ---- Files of tuning ---------------------------------------------------------------------------------------------------

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tuning").join(name);
    // From a run before.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn some_tuning() -> Tuning {
    let tiles = [
        row("32x32 streamed", 16),
        TunedTile::Broadcast { rows: 3 },
        TunedTile::Split {
            rows: 2,
            keys: 4,
            workgroups: 16,
        },
    ];
    Tuning {
        choices: tiles.map(|tile| choice(&problem(SHAPE), tile)).to_vec(),
    }
}

fn message(result: Result<Tuning, Error>) -> String {
    match result {
        Err(error @ Error::File { .. }) => error.to_string(),
        other => panic!("expected Error::File, got {other:?}"),
    }
}

#[test]
fn what_is_saved_is_loaded() {
    let path = scratch("saved").join("deep/tuning.json");
    some_tuning().save(&path, &software()).unwrap();
    assert_eq!(Tuning::load(&path, &software()).unwrap(), some_tuning());
    // Nothing lies beside it, and it is replaced whole.
    Tuning::default().save(&path, &software()).unwrap();
    assert_eq!(Tuning::load(&path, &software()).unwrap(), Tuning::default());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn stale_files_say_what_has_changed() {
    let path = scratch("stale").join("tuning.json");
    some_tuning().save(&path, &software()).unwrap();
    let other = |change: fn(&mut DeviceCaps)| {
        let mut caps = software();
        change(&mut caps);
        message(Tuning::load(&path, &caps))
    };
    let driver = other(|caps| caps.driver = "llvmpipe Mesa 25.0.7".into());
    for part in ["tuning.json", "the driver", "22.3.6", "25.0.7", "attn tune"] {
        assert!(driver.contains(part), "no {part:?} in {driver}");
    }
    assert!(other(|caps| caps.name = "another".into()).contains("the adapter"));
    assert!(other(|caps| caps.backend = "gl".into()).contains("the backend"));
    // What a device can do is looked at when a plan is made.
    assert!(Tuning::load(&path, &software().at_most(Tier::Portable)).is_ok());

    let text = fs::read_to_string(&path).unwrap();
    let edited = |from: &str, to: &str| {
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        message(Tuning::load(&path, &software()))
    };
    assert!(edited("\"format\": 1", "\"format\": 2").contains("format 2"));
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(edited(&version, "\"version\": \"0.0.1\"").contains("version"));
    assert!(edited("\"shaders\": \"", "\"shaders\": \"0").contains("the shaders"));
}

#[test]
fn corrupt_files_are_errors() {
    let path = scratch("corrupt").join("tuning.json");
    assert!(message(Tuning::load(&path, &software())).contains("no such file"));
    some_tuning().save(&path, &software()).unwrap();
    let text = fs::read(&path).unwrap();
    for end in (0..text.len() - 2).step_by(7) {
        fs::write(&path, &text[..end]).unwrap();
        assert!(
            message(Tuning::load(&path, &software())).contains("is no tuning"),
            "{end}"
        );
    }
    let text = String::from_utf8(text).unwrap();
    for (from, to) in [
        ("\"broadcast\"", "\"unheard of\""),
        ("\"many\"", "7"),
        ("\"rows\": 3", "\"rows\": -3"),
        ("\"f32\"", "\"f64\""),
        ("\"choices\": [", "\"choices\": [[],"),
    ] {
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert!(
            message(Tuning::load(&path, &software())).contains("is no tuning"),
            "{to}"
        );
    }
    fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    assert!(message(Tuning::load(&path, &software())).contains("is no tuning"));
    fs::write(&path, vec![b' '; 2 << 20]).unwrap();
    assert!(message(Tuning::load(&path, &software())).contains("larger"));
    // A folder where a file should be, and a file where a folder should be.
    assert!(matches!(
        Tuning::load(path.parent().unwrap(), &software()),
        Err(Error::File { .. })
    ));
    let below = path.join("tuning.json");
    assert!(
        matches!(some_tuning().save(&below, &software()), Err(Error::File { path, .. }) if path.contains("tuning.json"))
    );
}

#[test]
fn adapters_have_files_of_their_own() {
    let name = |change: fn(&mut DeviceCaps)| {
        let mut caps = software();
        change(&mut caps);
        // None for a user without a home.
        Some(Tuning::user_path(&caps)?.file_name()?.to_string_lossy().into_owned())
    };
    let Some(own) = name(|_| ()) else { return };
    assert!(own.starts_with("tuning-llvmpipe") && own.ends_with(".json"), "{own}");
    assert!(
        own.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c)),
        "{own}"
    );
    assert_ne!(name(|caps| caps.name.push('/')), Some(own.clone()));
    assert_ne!(name(|caps| caps.backend = "gl".into()), Some(own.clone()));
    // A new driver finds the old one's file, and says that it is stale.
    assert_eq!(name(|caps| caps.driver = "new".into()), Some(own));
}

#[test]
fn an_engine_has_the_tuning_that_it_is_given() {
    let tuning = Arc::new(some_tuning());
    let given = Engine::with(&EngineDescriptor {
        tuning: TuningSource::Given(Arc::clone(&tuning)),
        pipelines: PipelineFolder::Off,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(given.caps().tuning, Some(Arc::clone(&tuning)));
    assert_eq!(given.at_most(Tier::Portable).caps().tuning, Some(tuning));
    assert_eq!(given.with_tuning(None).caps().tuning, None);
    let off = Engine::with(&EngineDescriptor {
        tuning: TuningSource::Off,
        pipelines: PipelineFolder::Off,
        ..Default::default()
    });
    assert_eq!(off.unwrap().caps().tuning, None);
    for (_, engine) in engines() {
        assert_eq!(engine.caps().tuning, None);
    }
}

// ---- The driver's compiled kernels -------------------------------------------------------------------------------------

/// What a small call computes, on an engine that keeps its pipelines in this folder, and goes.
fn run_with(engine: &Engine, folder: PipelineFolder<'_>) -> Vec<f32> {
    let shape = AttentionShape::new(1, 2, 9, 10, 8);
    let engine = engine.with_pipelines(folder);
    let numbers: Vec<f32> = (0..2 * 10 * 8).map(|i| (i as f32 * 0.37).sin()).collect();
    let inputs = wgpu_attention::HostInputs::new(&numbers[..2 * 9 * 8], &numbers, &numbers);
    engine.attention(&descriptor(shape), &inputs).unwrap().out
}

#[test]
fn compiled_kernels_are_kept_where_the_device_has_a_cache() {
    for (name, engine) in engines() {
        let folder = scratch("kept");
        let want = run_with(&engine, PipelineFolder::Off);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        let below = folder.join("below");
        assert_eq!(run_with(&engine, PipelineFolder::At(&below)), want, "{name}");
        if !engine.device().features().contains(wgpu::Features::PIPELINE_CACHE) {
            assert!(!below.exists(), "{name}");
            continue;
        }
        let files: Vec<_> = fs::read_dir(&below)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1, "{name}: {files:?}");
        let whole = fs::read(&files[0]).unwrap();
        // A second run finds them, and corrupt ones are replaced.
        assert_eq!(run_with(&engine, PipelineFolder::At(&below)), want, "{name}");
        for corrupt in [&b""[..], &whole[..whole.len() - 1], b"something else"] {
            fs::write(&files[0], corrupt).unwrap();
            assert_eq!(run_with(&engine, PipelineFolder::At(&below)), want, "{name}");
            assert!(
                fs::read(&files[0]).unwrap().starts_with(b"wgpu-attention pipelines"),
                "{name}"
            );
        }
        // A folder that cannot be is no reason to fail; saving by hand says so.
        let file = folder.join("file");
        fs::write(&file, b"").unwrap();
        assert_eq!(run_with(&engine, PipelineFolder::At(&file)), want, "{name}");
        let kept = engine.with_pipelines(PipelineFolder::At(&file));
        kept.prepare(&descriptor(SHAPE)).unwrap();
        assert!(matches!(kept.save_pipelines(), Err(Error::File { .. })), "{name}");
        let kept = engine.with_pipelines(PipelineFolder::At(&folder));
        kept.prepare(&descriptor(SHAPE)).unwrap();
        kept.save_pipelines().unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "{name}");
    }
}
