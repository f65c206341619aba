//! How the prompt tokens of a step are divided among those who want some.

/// Gives everyone an equal share by weight and what some leave over to the others (max-min fairness; Bertsekas and
/// Gallager, *Data Networks*, §6.5.2). Shares are whole multiples of `tile` or the whole demand.
///
/// `demands` and `weights` are equally long; the result, too. The sum is at most `budget`; less than a tile is given to
/// nobody who wants more than that.
pub(super) fn share(budget: usize, tile: usize, demands: &[usize], weights: &[f64]) -> Vec<usize> {
    let mut given = vec![0; demands.len()];
    let mut left = budget;
    // Where not everyone can have a tile, the first ones get theirs.
    let mut open: Vec<usize> = (0..demands.len().min((budget / tile).max(1))).collect();
    // The smallest demand in proportion to its weight first: whether it is met is known without the others.
    open.sort_by(|&a, &b| {
        (demands[a] as f64 / weights[a]).total_cmp(&(demands[b] as f64 / weights[b])).then(a.cmp(&b))
    });
    let mut weight: f64 = open.iter().map(|&i| weights[i]).sum();
    for &i in &open {
        let part = (left as f64 * weights[i] / weight) as usize;
        given[i] = cut(demands[i], part, tile);
        left -= given[i];
        weight -= weights[i];
    }
    hand_out(&mut left, tile, demands, &mut given);
    given
}

/// Serves demands no larger than an equal share first, whatever their place, and gives the rest in order: short ones do
/// not wait behind long ones, and long ones end one after the other instead of all at the end.
pub(super) fn short_then_in_order(budget: usize, tile: usize, demands: &[usize]) -> Vec<usize> {
    let mut given = vec![0; demands.len()];
    let mut left = budget;
    let mut open: Vec<usize> = (0..demands.len()).collect();
    open.sort_by_key(|&i| (demands[i], i));
    for (n, &i) in open.iter().enumerate() {
        if demands[i] > left / (open.len() - n) {
            break;
        }
        given[i] = demands[i];
        left -= demands[i];
    }
    hand_out(&mut left, tile, demands, &mut given);
    given
}

/// Gives each in order as much as there is.
pub(super) fn in_order(budget: usize, tile: usize, demands: &[usize]) -> Vec<usize> {
    let mut given = vec![0; demands.len()];
    let mut left = budget;
    hand_out(&mut left, tile, demands, &mut given);
    given
}

fn hand_out(left: &mut usize, tile: usize, demands: &[usize], given: &mut [usize]) {
    for (given, &demand) in given.iter_mut().zip(demands) {
        let more = cut(demand - *given, *left, tile);
        *given += more;
        *left -= more;
    }
}

/// All of `wanted`, or the whole tiles that fit.
fn cut(wanted: usize, available: usize, tile: usize) -> usize {
    if wanted <= available { wanted } else { available / tile * tile }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_equal_and_leftovers_go_round() {
        let equal = [1.0; 4];
        assert_eq!(share(128, 16, &[1000, 1000], &equal[..2]), [64, 64]);
        assert_eq!(share(128, 16, &[1000, 10], &equal[..2]), [112, 10]);
        assert_eq!(share(128, 16, &[20, 30, 40], &equal[..3]), [20, 30, 40]);
        assert_eq!(share(128, 16, &[1000, 1000], &[3.0, 1.0]), [96, 32]);
        assert_eq!(share(16, 16, &[1000, 1000, 1000], &equal[..3]), [16, 0, 0]);
        assert_eq!(share(0, 16, &[5], &equal[..1]), [0]);
        assert_eq!(share(100, 16, &[], &[]), [0; 0]);
    }

    #[test]
    fn short_ones_pass_and_long_ones_keep_their_order() {
        assert_eq!(short_then_in_order(128, 16, &[8000, 40]), [80, 40]);
        assert_eq!(short_then_in_order(128, 16, &[8000, 8000, 30]), [96, 0, 30]);
        assert_eq!(short_then_in_order(128, 16, &[100, 100]), [100, 16]);
        assert_eq!(in_order(128, 16, &[100, 40, 1]), [100, 16, 1]);
    }

    #[test]
    fn nothing_is_given_twice_or_wasted() {
        let mut rng = crate::Rng::new(5);
        let mut below = |n: usize| (rng.unit() * n as f64) as usize;
        for _ in 0..2000 {
            let demands: Vec<usize> = (0..1 + below(6)).map(|_| 1 + below(300)).collect();
            let weights: Vec<f64> = demands.iter().map(|_| 1.0 + below(4) as f64).collect();
            let budget = below(600);
            let ways = [
                share(budget, 16, &demands, &weights),
                short_then_in_order(budget, 16, &demands),
                in_order(budget, 16, &demands),
            ];
            for given in ways {
                let total: usize = given.iter().sum();
                assert!(given.iter().zip(&demands).all(|(g, d)| g <= d), "{given:?} of {demands:?}");
                assert!(total <= budget);
                let wasted = budget - total;
                let unmet = given.iter().zip(&demands).any(|(g, d)| g < d && (d - g <= wasted || wasted >= 16));
                assert!(!unmet, "{wasted} of {budget} left over: {given:?} for {demands:?}");
            }
        }
    }
}
