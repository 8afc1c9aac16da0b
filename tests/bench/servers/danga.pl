# Danga::Socket itself, in Perl: the server that dangagreen's callback style is the counterpart of.
use strict;
use warnings;

package Connection;
use base 'Danga::Socket';
use fields qw(rest count blocks tail);

my $mode = $ARGV[0];
my $reply = "+PONG\r\n";
my $http_reply = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\nServer: bench\r\n\r\n"
    . "Hello, world!";
my $block = "x" x (1 << 18);
my $size = $mode eq "receive" ? 1 << 18 : 65536;
my %everybody;

sub new {
    my Connection $self = shift;
    $self = fields::new($self) unless ref $self;
    $self->SUPER::new(@_);
    $self->{rest} = "";
    $self->{count} = 0;
    if ($mode eq "broadcast") {
        $everybody{fileno $self->{sock}} = $self;
        $self->write($reply);
    }
    return $self;
}

sub close {
    my Connection $self = shift;
    delete $everybody{fileno $self->{sock}} if $mode eq "broadcast" && $self->{sock};
    $self->SUPER::close(@_);
}

sub handle { return $reply }

sub handle_http {
    my ($first, @lines) = split /\r\n/, $_[0];
    my %headers = map { split /: /, $_, 2 } @lines;
    return $first =~ /^GET / && exists $headers{Host} ? $http_reply : "HTTP/1.1 400 Bad Request\r\n\r\n";
}

sub lines {
    my Connection $self = shift;
    my @lines = split /\n/, $self->{rest}, -1;
    $self->{rest} = pop @lines;
    $self->write(@lines == 1 ? handle($lines[0]) : join "", map { handle($_) } @lines) if @lines;
}

sub http {
    my Connection $self = shift;
    my @heads = split /\r\n\r\n/, $self->{rest}, -1;
    $self->{rest} = pop @heads;
    $self->write(@heads == 1 ? handle_http($heads[0]) : join "", map { handle_http($_) } @heads) if @heads;
}

sub receive {
    my Connection $self = shift;
    $self->{count} += length $self->{rest};
    $self->{rest} = "";
}

sub send {
    my Connection $self = shift;
    return unless $self->{rest} =~ s/^(\d+)\n//;
    $self->{blocks} = int($1 / length $block);
    $self->{tail} = substr $block, 0, $1 % length $block;
    $self->pump;
}

sub pump {
    my Connection $self = shift;
    while ($self->{blocks}) {
        $self->{blocks}--;
        return $self->write(sub { $self->pump }) unless $self->write(\$block);
    }
    $self->write($self->{tail}) if length $self->{tail};
}

sub broadcast {
    my Connection $self = shift;
    my $end = rindex $self->{rest}, "\n";
    return if $end < 0;
    my $message = substr $self->{rest}, 0, $end + 1, "";
    $_->write($message) for values %everybody;
}

my %take = (lines => \&lines, http => \&http, receive => \&receive, send => \&send, broadcast => \&broadcast);
my $take = $take{$mode} or die "no such mode";

sub event_read {
    my Connection $self = shift;
    my $data = $self->read($size);
    if (!defined $data) {
        $self->write("$self->{count}\n") if $mode eq "receive";
        return $self->close("the peer has ended");
    }
    $self->{rest} = length $self->{rest} ? $self->{rest} . $$data : $$data;
    $take->($self);
}

sub event_err { $_[0]->close("error") }
sub event_hup { $_[0]->close("hang-up") }

package main;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY SOMAXCONN);

my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Listen => 4096, Proto => "tcp", Blocking => 0) or die;
setsockopt $listener, IPPROTO_TCP, TCP_NODELAY, 1;
Danga::Socket->AddOtherFds(fileno($listener) => sub {
    while (my $sock = $listener->accept) {
        $sock->blocking(0);
        Connection->new($sock)->watch_read(1);
    }
});
$| = 1;
print $listener->sockport, "\n";
Danga::Socket->EventLoop;
