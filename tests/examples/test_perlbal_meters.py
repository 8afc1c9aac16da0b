"""What is counted of the requests of a service."""

from perlbal.meters import BOUNDS, Meter


def test_answers_are_counted_by_code_and_duration():
    meter = Meter()
    for code, seconds in ((200, 0.0), (200, BOUNDS[0]), (404, BOUNDS[0] * 1.01), (200, 1000.0)):
        meter.answered(code, seconds, 100)
    assert meter.codes == {200: 3, 404: 1}
    assert (meter.durations[0], meter.durations[1], meter.durations[-1]) == (2, 1, 1)
    assert sum(meter.durations) == 4
    assert meter.sent == 400
