//! Draws plots as SVG. The style sheet of the page replaces the colors, for light and dark mode.

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::*;

use hardtack_converter::{HistogramReport, RangeReport, WeightsReport};

use crate::output::escaped;

/// The color of the main data.
const MAIN: RGBColor = RGBColor(0x00, 0x72, 0xB2);
/// The color of the data to compare with.
const OTHER: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
/// The color of axes and text.
const INK: RGBColor = RGBColor(0x44, 0x44, 0x44);
/// The color of the grid.
const GRID: RGBColor = RGBColor(0xDD, 0xDD, 0xDD);

/// The width of a plot in pixels, which fits a phone.
const WIDTH: u32 = 320;
const HEIGHT: u32 = 200;
/// The position of a count of 0 on a logarithmic axis.
const NOTHING: f64 = -0.3;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws a plot; `label` describes it for screen readers.
fn plot(
    label: &str,
    draw: impl for<'a> FnOnce(&Area<'a>) -> Result<(), DrawingAreaErrorKind<std::io::Error>>,
) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let drawn = draw(&area).and_then(|()| area.present());
        drawn.map_err(|error| anyhow!("the plot \"{label}\" cannot be drawn: {error}"))?;
    }
    let open = format!("<svg class=\"plot\" role=\"img\" aria-label=\"{}\" ", escaped(label));
    Ok(svg.replacen("<svg ", &open, 1))
}

/// Formats a number for an axis label, such as `10k`.
fn short(value: &f64) -> String {
    let size = value.abs();
    match size {
        _ if size < 1e-12 => "0".into(),
        1e9.. => format!("{:.0}G", value / 1e9),
        1e6.. => format!("{:.0}M", value / 1e6),
        1e4.. => format!("{:.0}k", value / 1e3),
        10.0.. => format!("{value:.0}"),
        0.01.. => format!("{}", (value * 1000.0).round() / 1000.0),
        _ => format!("{value:.0e}"),
    }
}

/// Formats the label of a logarithmic axis at exponent `place`; empty between powers of ten.
fn power(place: &f64) -> String {
    if *place >= 0.0 && (place - place.round()).abs() < 1e-6 {
        short(&10f64.powf(*place))
    } else {
        String::new()
    }
}

/// The labels of an axis.
enum Ticks {
    /// The values themselves.
    Plain,
    /// Powers of ten; the values are their exponents.
    Powers,
}

/// Draws the axes of a chart with its ranges and titles.
fn axes<'a, 'b>(
    area: &'a Area<'b>,
    (x, y): (std::ops::Range<f64>, std::ops::Range<f64>),
    (x_title, y_title): (&str, &str),
    y_ticks: Ticks,
) -> Result<
    ChartContext<
        'a,
        SVGBackend<'b>,
        Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
    >,
    DrawingAreaErrorKind<std::io::Error>,
> {
    let (labels, y_label): (_, &dyn Fn(&f64) -> String) = match y_ticks {
        Ticks::Plain => (6, &short),
        Ticks::Powers => (y.end as usize + 1, &power),
    };
    let mut chart = ChartBuilder::on(area)
        .margin_top(8)
        .margin_right(14)
        .x_label_area_size(38)
        .y_label_area_size(48)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(5)
        .y_labels(labels)
        .x_label_formatter(&short)
        .y_label_formatter(y_label)
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 12).into_font().color(&INK))
        .x_desc(x_title)
        .y_desc(y_title)
        .draw()?;
    Ok(chart)
}

/// Returns the contour of a histogram from `low` to `high`; heights are logarithms to base 10.
fn columns(counts: &[u64], low: f64, high: f64) -> Vec<(f64, f64)> {
    let at = |part: usize| low + (high - low) * part as f64 / counts.len() as f64;
    let heights = counts.iter().map(|count| match count {
        0 => NOTHING,
        count => (*count as f64).log10(),
    });
    heights.enumerate().flat_map(|(part, y)| [(at(part), y), (at(part + 1), y)]).collect()
}

/// Returns the top of a logarithmic axis for these counts.
fn tallest(counts: &[u64]) -> f64 {
    (counts.iter().copied().max().unwrap_or(1).max(1) as f64).log10() * 1.05 + 0.1
}

/// Draws the histogram of a tensor and its quantized range.
pub fn spread(spread: &HistogramReport, range: Option<&RangeReport>) -> anyhow::Result<String> {
    let [low, high] = spread.seen.map(f64::from);
    let high = if high > low { high } else { low + 1.0 };
    let top = tallest(&spread.counts);
    let covered = range.map(|range| range.covered.map(f64::from));
    let [least, most] = covered.map_or([low, high], |[a, b]| [a.min(low), b.max(high)]);
    let border = 0.04 * (most - least);
    plot("histogram of the values, and the quantized range", |area| {
        let x = least - border..most + border;
        let mut chart = axes(area, (x, NOTHING..top), ("value", "count (log)"), Ticks::Powers)?;
        if let Some([a, b]) = covered {
            chart.draw_series([Rectangle::new(
                [(a, NOTHING), (b, top)],
                OTHER.mix(0.12).filled(),
            )])?;
        }
        let outline = columns(&spread.counts, low, high);
        chart.draw_series(AreaSeries::new(outline, NOTHING, MAIN))?;
        for end in covered.into_iter().flatten() {
            chart.draw_series(LineSeries::new(
                [(end, NOTHING), (end, top)],
                OTHER.stroke_width(2),
            ))?;
        }
        Ok(())
    })
}

/// Draws the histogram of the quantized weights of a layer.
pub fn levels(weights: &WeightsReport) -> anyhow::Result<String> {
    plot("histogram of the quantized weights", |area| {
        let y = NOTHING..tallest(&weights.counts);
        let titles = ("weight (i8, 4 values per column)", "count (log)");
        let mut chart = axes(area, (-132.0..132.0, y), titles, Ticks::Powers)?;
        let outline = columns(&weights.counts, -128.0, 128.0);
        chart.draw_series(AreaSeries::new(outline, NOTHING, MAIN)).map(drop)
    })
}

/// Draws one value per layer, in execution order.
pub fn by_layer(label: &str, y_title: &str, values: &[f64]) -> anyhow::Result<String> {
    let (low, high) = (values.iter().copied().fold(0.0, f64::min), greatest(values));
    let points = || values.iter().enumerate().map(|(index, y)| (index as f64 + 1.0, *y));
    plot(label, |area| {
        let x = 0.5..values.len() as f64 + 0.5;
        let mut chart =
            axes(area, (x, low..high), ("layer, in execution order", y_title), Ticks::Plain)?;
        chart.draw_series(LineSeries::new(points(), MAIN.stroke_width(1)))?;
        chart.draw_series(points().map(|at| Circle::new(at, 2, MAIN.filled()))).map(drop)
    })
}

/// Draws points with a line through them, and a horizontal line at `level`.
pub fn frontier(titles: (&str, &str), points: &[(f64, f64)], level: f64) -> anyhow::Result<String> {
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
        let border = 0.08 * (high - low).max(1e-3 * high.abs()).max(1e-9);
        low - border..high + border
    };
    let x = range(&mut points.iter().map(|point| point.0).chain(points.is_empty().then_some(0.0)));
    let y = range(&mut points.iter().map(|point| point.1).chain([level]));
    let ends = [(x.start, level), (x.end, level)];
    plot("accuracy against size", |area| {
        let mut chart = axes(area, (x, y), titles, Ticks::Plain)?;
        chart.draw_series(LineSeries::new(ends, OTHER.stroke_width(2)))?;
        chart.draw_series(LineSeries::new(points.iter().copied(), MAIN.stroke_width(1)))?;
        chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, MAIN.filled()))).map(drop)
    })
}

/// Draws two columns per pair: the first value wide and behind, the second narrow and in front.
pub fn pairs(label: &str, titles: (&str, &str), pairs: &[(f64, f64)]) -> anyhow::Result<String> {
    let all: Vec<f64> = pairs.iter().flat_map(|pair| [pair.0, pair.1]).collect();
    let column = |index: usize, half: f64, y: f64| {
        let middle = index as f64 + 1.0;
        [(middle - half, 0.0), (middle + half, y)]
    };
    plot(label, |area| {
        let x = 0.4..pairs.len() as f64 + 0.6;
        let mut chart = axes(area, (x, 0.0..greatest(&all)), titles, Ticks::Plain)?;
        let behind = pairs.iter().enumerate();
        let behind =
            behind.map(|(i, pair)| Rectangle::new(column(i, 0.42, pair.0), OTHER.filled()));
        chart.draw_series(behind)?;
        let front = pairs.iter().enumerate();
        let front = front.map(|(i, pair)| Rectangle::new(column(i, 0.24, pair.1), MAIN.filled()));
        chart.draw_series(front).map(drop)
    })
}

/// Draws one column per value.
pub fn bars(label: &str, titles: (&str, &str), values: &[f64]) -> anyhow::Result<String> {
    plot(label, |area| {
        let x = 0.4..values.len() as f64 + 0.6;
        let mut chart = axes(area, (x, 0.0..greatest(values)), titles, Ticks::Plain)?;
        let bars = values.iter().enumerate().map(|(index, y)| {
            let middle = index as f64 + 1.0;
            Rectangle::new([(middle - 0.4, 0.0), (middle + 0.4, *y)], MAIN.filled())
        });
        chart.draw_series(bars).map(drop)
    })
}

/// Returns the top of an axis for these values.
fn greatest(values: &[f64]) -> f64 {
    1.05 * values.iter().copied().filter(|y| y.is_finite()).fold(1e-9, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_short_numbers() {
        let texts = [0.0, 0.125, 12.0, 2500.0, 1e4, 3e6, -0.001].map(|value| short(&value));
        assert_eq!(texts, ["0", "0.125", "12", "2500", "10k", "3M", "-1e-3"]);
        assert_eq!([power(&2.0), power(&0.5), power(&-0.3)], ["100", "", ""]);
    }

    #[test]
    fn a_histogram_shows_both_ends_of_the_quantized_range() {
        let spread_of = HistogramReport { seen: [-1.0, 3.0], zeros: 2, counts: vec![5, 0, 100, 1] };
        let plain = spread(&spread_of, None).unwrap();
        let method = hardtack_converter::RangeMethod::Mse;
        let range = RangeReport { seen: [-1.0, 3.0], covered: [-1.0, 2.0], bits: 8, method };
        let covered = spread(&spread_of, Some(&range)).unwrap();
        assert_eq!(plain.matches("#D55E00").count(), 0);
        assert_eq!(covered.matches("stroke=\"#D55E00\"").count(), 2);
        assert!(covered.starts_with("<svg class=\"plot\""));
    }

    #[test]
    fn constant_and_empty_data_can_be_drawn() {
        let nothing = HistogramReport { seen: [0.0, 0.0], zeros: 9, counts: vec![0; 4] };
        assert!(spread(&nothing, None).is_ok());
        assert!(bars("none", ("x", "y"), &[]).is_ok() && bars("zero", ("x", "y"), &[0.0]).is_ok());
        for points in [&[][..], &[(0.0, 0.0)]] {
            assert!(frontier(("x", "y"), points, 0.0).is_ok());
        }
    }
}
