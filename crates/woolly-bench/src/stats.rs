//! A sample in a few numbers.

/// Mean, spread and order statistics of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Number of values.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the population the sample is from (n − 1 in the denominator); 0 for fewer than two values.
    pub stddev: f64,
    /// The middle value, or the mean of the two in the middle.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Statistics {
    /// Summarises `values`; of none, everything is 0.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let (count, middle) = (sorted.len(), sorted.len() / 2);
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let stddev = if count > 1 { (squares / (count - 1) as f64).sqrt() } else { 0.0 };
        let median = if count % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) };
        Self { count, mean, stddev, median, min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_textbook_sample() {
        // Mean 5, squared deviations 32: 32 / 7 under the root.
        let found = Statistics::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        let stddev = (32.0_f64 / 7.0).sqrt();
        assert_eq!(found, Statistics { count: 8, mean: 5.0, stddev, median: 4.5, min: 2.0, max: 9.0 });
    }

    #[test]
    fn small_samples() {
        assert_eq!(Statistics::of(&[]), Statistics::default());
        let one = Statistics::of(&[3.0]);
        assert_eq!((one.count, one.mean, one.stddev, one.median), (1, 3.0, 0.0, 3.0));
        let three = Statistics::of(&[9.0, 1.0, 2.0]);
        assert_eq!((three.mean, three.median, three.min, three.max), (4.0, 2.0, 1.0, 9.0));
    }
}
