//! Arrays that live on the device against rows that the host gathers.

use super::*;
use crate::device::Room;
use crate::testing::{set_room, writes};

/// `(a · w + [b > 0]·w₀ + table[c])²`, its inputs a matrix of floats, truth values and integers.
fn program() -> Program {
    let mut program = Program::default();
    let dims = |length: usize| vec![Dim::BATCH, Dim::known(length)];
    let a = program.input("a", dims(2), Kind::Float).expect("a new name");
    let b = program.input("b", dims(2), Kind::Bool).expect("a new name");
    let c = program.input("c", vec![Dim::BATCH], Kind::Int).expect("a new name");
    let initializer = Initializer::Normal { mean: 0.0, stddev: 0.7 };
    let mut parameter = |path: &str, shape: &[usize], role| {
        let parameter =
            Parameter { path: path.to_owned(), shape: shape.to_vec(), role, initializer: initializer.clone() };
        program.parameter(parameter).expect("a new path")
    };
    let (w, table) = (parameter("w", &[2], Role::Kernel), parameter("table", &[3, 2], Role::Embedding));
    let mut apply = |name: &str, inputs: &[ValueId], attributes| {
        program.apply(name, inputs.to_vec(), attributes).expect("fitting shapes")
    };
    let product = apply("multiply", &[a, w], json!({}));
    let chosen = apply("where", &[b, product, w], json!({}));
    let picked = apply("take", &[table, c], json!({"axis": 0}));
    let sum = apply("add", &[chosen, picked], json!({}));
    let squares = apply("square", &[sum], json!({}));
    let loss = apply("mean", &[squares], json!({"axes": [1]}));
    program.output("training.loss", loss).expect("a value");
    program
}

/// Float64 columns of a Fortran matrix, bytes as truth values, and every second of some 64-bit integers.
struct Arrays3 {
    a: Vec<f64>,
    b: Vec<u8>,
    c: Vec<i64>,
}

impl Arrays3 {
    fn new(rows: usize) -> Self {
        let whole = |seed, count: usize, most: f64| numbers(seed, count).into_iter().map(move |x| x.abs() * most);
        Self {
            a: numbers(1, 2 * rows),
            b: whole(2, 2 * rows, 1.99).map(|x| x as u8).collect(),
            c: whole(3, 2 * rows, 2.99).map(|x| x as i64).collect(),
        }
    }

    fn inputs(&self) -> Inputs {
        let rows = self.b.len() / 2;
        // SAFETY: the arrays outlive every use of their views in these tests.
        unsafe {
            let a = self.a.as_ptr().cast();
            let a = ArrayView::new(a, Format::F64, false, vec![rows, 2], vec![8, 8 * rows as isize]);
            let b = ArrayView::new(self.b.as_ptr(), Format::Bool, false, vec![rows, 2], vec![2, 1]);
            let c = ArrayView::new(self.c.as_ptr().cast(), Format::I64, false, vec![rows], vec![16]);
            [("a", a), ("b", b), ("c", c)].map(|(name, view)| (name.to_owned(), view)).into()
        }
    }
}

fn on(device: &Device, dtype: DType) -> Session {
    let mut session =
        Session::new(Arc::new(program()), device.clone(), dtype, 3, &mut Arrays::new()).expect("a whole program");
    let config = serde_json::from_value(json!({"name": "adam", "clip_norm": 0.4})).expect("a configuration");
    session.set_optimizer(&config).expect("a known optimizer");
    session
}

/// The state and the losses after an epoch in a shuffled order.
fn trained(session: &mut Session, inputs: &Inputs) -> (Vec<f64>, Vec<f64>) {
    let rows = inputs["c"].rows();
    let order = crate::random::permutation(1, 0, rows);
    let rates = vec![0.05; rows.div_ceil(4)];
    let chunk = Chunk { order: Some(&order), first_step: 1, diagnose: true, ..Chunk::new(4, &rates) };
    let records = session.train(inputs, &chunk, &Interrupt::default()).expect("steps");
    (flat(&session.whole_state("optimizer.").expect("compiled")), records.loss)
}

#[test]
fn rows_of_arrays_that_the_device_holds_are_those_that_the_host_gathers() {
    let arrays = Arrays3::new(30);
    let inputs = arrays.inputs();
    for dtype in [DType::F32, DType::F64] {
        let expected = trained(&mut on(&Device::ndarray(), dtype), &inputs);
        // Of float64 the matrix takes 480 bytes, of float32 240, the truth values 240, the integers 120.
        for (bytes, largest, held) in
            [(1000, 1000, vec!["a", "b", "c"]), (1000, 239, vec!["c"]), (120, 1000, vec!["c"]), (119, 1000, vec![])]
        {
            let mut session = on(&Device::ndarray(), dtype);
            set_room(Some(Room { bytes, largest }));
            assert_eq!(session.hold(&inputs).expect("their own arrays"), held, "{bytes} {largest}");
            set_room(None);
            assert_eq!(trained(&mut session, &inputs), expected);
        }
    }
}

#[test]
fn steps_on_arrays_that_the_device_holds_send_it_no_rows() {
    let arrays = Arrays3::new(30);
    let inputs = arrays.inputs();
    let mut session = on(&Device::ndarray(), DType::F32);
    let mut sent = |hold: bool| {
        if hold {
            session.hold(&inputs).expect("their own arrays");
        } else {
            session.release();
        }
        let before = writes();
        trained(&mut session, &inputs);
        writes() - before
    };
    // The numbers of the rows, once; otherwise three arrays a step.
    assert_eq!([false, true, false].map(&mut sent), [8 * 3, 1, 8 * 3]);
}

#[test]
fn arrays_that_are_held_are_told_from_others_and_stay_as_they_were() {
    let mut arrays = Arrays3::new(30);
    let other = Arrays3 { a: arrays.a.iter().map(|x| x + 1.0).collect(), b: arrays.b.clone(), c: arrays.c.clone() };
    let expected = trained(&mut on(&Device::ndarray(), DType::F32), &other.inputs());
    let before = trained(&mut on(&Device::ndarray(), DType::F32), &arrays.inputs());
    let mut session = on(&Device::ndarray(), DType::F32);
    session.hold(&arrays.inputs()).expect("their own arrays");
    assert_eq!(trained(&mut session, &other.inputs()), expected);
    let mut session = on(&Device::ndarray(), DType::F32);
    session.hold(&arrays.inputs()).expect("their own arrays");
    arrays.a.iter_mut().for_each(|x| *x += 1.0);
    assert_eq!(trained(&mut session, &arrays.inputs()), before);
    session.release();
    let mut fresh = on(&Device::ndarray(), DType::F32);
    fresh.load_state(session.state()).expect("its own arrays");
    fresh.load_optimizer_state(session.optimizer_state().expect("compiled")).expect("its own arrays");
    assert_eq!(trained(&mut session, &arrays.inputs()), trained(&mut fresh, &arrays.inputs()));
}

#[test]
fn the_cpu_holds_nothing() {
    let arrays = Arrays3::new(5);
    assert!(on(&Device::cpu(), DType::F32).hold(&arrays.inputs()).expect("nothing to do").is_empty());
}
