# Timers of Danga::Socket.
use strict;
use warnings;
use Danga::Socket;
use Time::HiRes qw(clock time);

my ($mode, $count) = @ARGV;
my ($pending, $batch, $window) = (100_000, 1000, 0.005);
srand 1;
Danga::Socket->AddTimer(1000 + $_ / 100, sub { }) for 1 .. $pending;    # in order, for an insertion is linear
my @far = map { 1000 + rand 1000 } 1 .. $batch;
my @near = map { 0.001 + rand($window - 0.001) } 1 .. $batch;

sub cancel_some {
    my $number = shift;
    my @timers = map { Danga::Socket->AddTimer($far[$_ % $batch], sub { }) } 1 .. $number;
    $_->cancel for @timers;
}

sub fire_some {
    my $fired = 0;
    Danga::Socket->AddTimer($near[$_], sub { $fired++ }) for 0 .. $batch - 1;
    Danga::Socket->AddTimer($window + $_, sub { }) for 0.003, 0.03;    # it looks at the callback after a wait only
    Danga::Socket->SetPostLoopCallback(sub { $fired < $batch });
    Danga::Socket->EventLoop;
}

sub work {
    my $number = shift;
    return cancel_some($number) if $mode eq "timer_cancel";
    fire_some() for 1 .. $number / $batch;
}

work($mode eq "timer_cancel" ? $count / 10 : $batch);
my ($cpu, $wall) = (clock, time);
work($count);
printf qq({"units": %d, "seconds": %.6f, "cpu": %.6f}\n), $count, time - $wall, clock() - $cpu;
