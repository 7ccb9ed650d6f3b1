//! Samples of one figure.

use serde::Serialize;

/// The values that repetitions gave for one figure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Samples {
    values: Vec<f64>,
}

impl Samples {
    pub fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    /// The value to report. No values, no median.
    pub fn median(&self) -> Option<f64> {
        percentile(&self.values, 50.0)
    }

    /// The nearest-rank percentile. No values, no percentile.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        percentile(&self.values, percent)
    }

    /// Percentiles for a plot, of what was sampled often enough to have some.
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        const PERCENTS: [f64; 15] = [
            1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 98.0, 99.0, 100.0,
        ];
        if self.values.len() < 20 {
            return Vec::new();
        }
        PERCENTS
            .into_iter()
            .filter_map(|percent| Some((percent, percentile(&self.values, percent)?)))
            .collect()
    }

    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

/// The nearest-rank percentile (0 < `percent` <= 100) of values in any order.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(percentile(&values, 50.0), Some(3.0));
        assert_eq!(percentile(&values, 99.0), Some(5.0));
        assert_eq!(percentile(&values, 1.0), Some(1.0));
        assert_eq!(percentile(&[], 50.0), None);
    }
}
