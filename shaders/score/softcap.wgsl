// Purpose: softcap * tanh(score / softcap). Hook of slot `softcap`: defines cap_score.
// tanh is a rational function of our own: drivers' own overflow for large numbers or lose the small ones' digits.
// Source of its coefficients: Eigen, ptanh_float: at most a few units in the last place off.

fn rational_tanh(number: f32) -> f32 {
    // Beyond this a single rounds to 1. NaN passes.
    var x = select(number, 7.9053111, number > 7.9053111);
    x = select(x, -7.9053111, x < -7.9053111);
    let y = x * x;
    var p = fma(y, -2.76076847742355e-16, 2.00018790482477e-13);
    p = fma(y, p, -8.60467152213735e-11);
    p = fma(y, p, 5.12229709037114e-08);
    p = fma(y, p, 1.48572235717979e-05);
    p = fma(y, p, 6.37261928875436e-04);
    p = fma(y, p, 4.89352455891786e-03);
    var q = fma(y, 1.19825839466702e-06, 1.18534705686654e-04);
    q = fma(y, q, 2.26843463243900e-03);
    q = fma(y, q, 4.89352518554385e-03);
    return x * p / q;
}

fn cap_score(score: f32) -> f32 {
    let share = score / params.softcap;
    // Below 1e-4 tanh is the number itself, to less than half a unit in the last place; and a quotient by a very large cap has
    // lost its digits.
    return select(params.softcap * rational_tanh(share), score, abs(share) < 1e-4);
}
