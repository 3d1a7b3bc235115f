"""Flows as rows of numbers and categories for `TabularDetector`: what each flow is, and what its source did lately."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from diffad.base.arguments import check_count, is_number
from diffad.flows.context import SourceContext
from diffad.flows.rhythm import Rhythm
from diffad.flows.table import COLUMNS, COUNTERS

Networks = tuple[IPv4Network | IPv6Network, ...]

#: Private, loopback and link-local networks (RFC 1918, 4193, 6598 and others).
PRIVATE = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("fc00::/7", "fe80::/10", "::1/128"),
)
#: Ports from here on are given to clients by Linux; IANA's range begins at 49152.
FIRST_EPHEMERAL = 32768
SERVICES = {
    20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "dns", 67: "dhcp", 68: "dhcp", 69: "tftp",
    80: "http", 88: "kerberos", 110: "pop3", 111: "rpcbind", 123: "ntp", 135: "msrpc", 137: "netbios", 138: "netbios",
    139: "netbios", 143: "imap", 161: "snmp", 162: "snmptrap", 179: "bgp", 389: "ldap", 443: "https", 445: "smb",
    465: "smtps", 500: "isakmp", 514: "syslog", 515: "printer", 546: "dhcp", 547: "dhcp", 554: "rtsp",
    587: "submission", 631: "ipp", 636: "ldaps", 853: "dns-tls", 873: "rsync", 989: "ftps", 990: "ftps", 993: "imaps",
    995: "pop3s", 1080: "socks", 1194: "openvpn", 1433: "mssql", 1521: "oracle", 1812: "radius", 1883: "mqtt",
    1900: "ssdp", 2049: "nfs", 3128: "http-proxy", 3306: "mysql", 3389: "rdp", 3478: "stun", 4500: "ipsec",
    5060: "sip", 5222: "xmpp", 5353: "mdns", 5355: "llmnr", 5432: "postgresql", 5672: "amqp", 5900: "vnc",
    5985: "winrm", 5986: "winrm", 6379: "redis", 6667: "irc", 8080: "http", 8443: "https", 8883: "mqtt",
    9200: "elasticsearch", 11211: "memcached", 27017: "mongodb", 51820: "wireguard",
}  # fmt: skip


class FlowFeatures(TransformerMixin, BaseEstimator):
    """Turn a flow table into features of flows.

    Columns named ``log_...`` are natural logarithms, ``log1p`` of the quantity in the name; ``np.expm1`` leads back.

    - ``log_duration_ms``, ``log_bytes_out``, ``log_bytes_in``, ``log_packets_out``, ``log_packets_in``;
      ``log_bytes_per_second``, ``log_packets_per_second`` (both directions; missing for a duration of zero);
      ``log_bytes_per_packet_out``, ``log_bytes_per_packet_in``
    - ``protocol``, ``state``, ``service`` (as the sensor named it, or ``none``); ``destination_service`` and
      ``source_service``: a well-known name by the port, else its class, ``system`` (below 1024), ``registered`` or
      ``ephemeral`` (from 32768 on); ``direction``: ``internal``, ``outbound``, ``inbound``, ``external``,
      ``multicast`` (or broadcast) or ``unknown``
    - of the source in each window w: ``log_connections_w``, ``log_peers_w``, ``log_ports_w`` (different destinations
      and destination ports), ``failed_share_w``, ``log_bytes_out_w``; of the destination ``log_sources_w`` (different
      sources); the present flow counts. See `diffad.flows.context`.
    - ``log_interval_ms`` and ``log_jitter_percent``: how regularly the source comes back to this port of the destination;
      missing until it did five times. See `diffad.flows.rhythm`.

    `transform` takes a table for a log of its own; `stream` goes through one in chunks, with equal results.

    Parameters
    ----------
    windows : sequence of float, default=(10.0, 600.0)
        Lengths of the windows in seconds: bursts, and what is slow on purpose. Six columns each.
    inside : sequence of str, default=None
        Networks of one's own, as ``"192.0.2.0/24"``; None takes the private ones.
    max_flows : int, default=200_000
        Windows and rhythms hold flows among so many latest ones of all sources; bounds memory at about 150 bytes each.

    Attributes
    ----------
    columns_ : list of str
        Features that have a value in some flow seen by `fit`; the others are left out.

    Examples
    --------
    >>> import pandas as pd
    >>> from diffad.flows import FlowFeatures
    >>> from diffad.flows.table import ReadReport, flow_table
    >>> fields = {"start": [0.0, 1.0, 2.0], "source": ["10.0.0.5"] * 3, "destination": ["10.0.0.9", "10.0.0.7", "8.8.8.8"],
    ...           "destination_port": [22, 22, 53], "protocol": ["tcp", "tcp", "udp"], "state": ["S0", "SF", "SF"]}
    >>> features = FlowFeatures(windows=(60,)).fit_transform(flow_table(fields, [""] * 3, ReadReport()))
    >>> features[["destination_service", "direction", "failed_share_60s"]].values.tolist()
    [['ssh', 'internal', 1.0], ['ssh', 'internal', 0.5], ['dns', 'outbound', 0.3333333333333333]]
    """

    def __init__(
        self,
        windows: Sequence[float] = (10.0, 600.0),
        inside: Sequence[str] | None = None,
        max_flows: int = 200_000,
    ) -> None:
        self.windows = windows
        self.inside = inside
        self.max_flows = max_flows

    def fit(self, X: pd.DataFrame, y: Any = None) -> Self:
        """Learn which features the flows have values for; a part of the log is enough.

        Parameters
        ----------
        X : DataFrame
            Flows in the order of their log, with the columns `diffad.flows.COLUMNS`.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If `X` is no flow table, or a parameter is impossible.
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: pd.DataFrame, y: Any = None) -> pd.DataFrame:
        """Return the features of the flows `fit` learns from.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        DataFrame of shape (n_flows, n_features)
            As `transform` gives them.
        """
        features = self._stream().update(X)
        self.columns_ = list(features.columns[features.notna().any()])
        return filled(features[self.columns_])

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the features of flows in the order of their log, which begins with them.

        Parameters
        ----------
        X : DataFrame
            As in `fit`.

        Returns
        -------
        DataFrame of shape (n_flows, n_features), index as of X
            float64 and string columns; missing where the flow lacks what it takes.
        """
        return self.stream().update(X)

    def stream(self) -> FlowStream:
        """Return a stream for the chunks of a log; it can be pickled between them."""
        check_is_fitted(self)
        return self._stream(self.columns_)

    def whole_stream(self) -> FlowStream:
        """Return a stream of every feature there is, for a log of which nothing is known yet; see `filled`."""
        return self._stream()

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the features.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        array of str
        """
        check_is_fitted(self)
        return np.array(self.columns_, dtype=object)

    def _stream(self, columns: list[str] | None = None) -> FlowStream:
        windows = tuple(self.windows) if np.iterable(self.windows) else ()
        fitting = all(is_number(window) and 0 < window < np.inf for window in windows)
        if not windows or not fitting or len(set(windows)) < len(windows):
            raise ValueError(f"windows must be different positive numbers of seconds, got {self.windows!r}")
        check_count(self.max_flows, "max_flows")
        try:
            inside = tuple(ip_network(network) for network in (PRIVATE if self.inside is None else self.inside))
        except (TypeError, ValueError) as error:
            raise ValueError(f"inside must hold networks such as '192.0.2.0/24': {error}") from error
        return FlowStream(tuple(map(float, windows)), int(self.max_flows), inside, columns)


def _check_dtypes(flows: pd.DataFrame) -> None:
    """Raise where columns are not what their names say, as of a table that was written as CSV and read again."""
    if not pd.api.types.is_datetime64_any_dtype(flows["start"]):
        raise ValueError(
            f"start holds {flows['start'].dtype}, not timestamps; make it some: pd.to_datetime(flows['start'], utc=True)"
        )
    for name in COUNTERS:
        if not pd.api.types.is_numeric_dtype(flows[name]):
            raise ValueError(f"{name} holds {flows[name].dtype}, not numbers; give floats, seconds of durations")


class FlowStream:
    """Features of a log that comes in chunks; `FlowFeatures.stream` makes it."""

    def __init__(self, windows: tuple[float, ...], max_flows: int, inside: Networks, columns: list[str] | None) -> None:
        self.sources = SourceContext(windows, max_flows)
        self.destinations = SourceContext(windows, max_flows)
        self.rhythm = Rhythm(max_flows)
        self.inside = inside
        self.columns = columns

    def update(self, flows: pd.DataFrame) -> pd.DataFrame:
        """Return the features of the next flows, as `FlowFeatures.transform` does."""
        lacking = [name for name in COLUMNS if name not in flows] if isinstance(flows, pd.DataFrame) else list(COLUMNS)
        if lacking:
            raise ValueError(f"this is no flow table as of diffad.flows.load_flows: it lacks {lacking}")
        _check_dtypes(flows)
        if flows["start"].isna().any():
            raise ValueError("start is missing in some flows; drop them: flows = flows.dropna(subset='start')")
        lately = pd.concat([self.sources.update(flows), self._visits(flows), self.rhythm.update(flows)], axis=1)
        for name in [name for name in lately if not name.startswith("failed")]:
            lately[name] = np.log1p(lately[name])
        lately.columns = [name if name.startswith("failed") else f"log_{name}" for name in lately]
        features = pd.concat([_of_flows(flows, self.inside), lately], axis=1)
        return features if self.columns is None else filled(features[self.columns])

    def _visits(self, flows: pd.DataFrame) -> pd.DataFrame:
        """Return how many different sources lately spoke to the destination of each flow."""
        turned = flows.assign(source=flows["destination"], destination=flows["source"])
        peers = self.destinations.update(turned).filter(regex="^peers_")
        return peers.rename(columns=lambda name: name.replace("peers", "sources"))


def filled(features: pd.DataFrame) -> pd.DataFrame:
    """Return features with a name for services that the sensor did not recognise."""
    # That the sensor recognised nothing says something, unless it never recognises anything.
    return features.fillna({"service": "none"})


def _of_flows(flows: pd.DataFrame, inside: Networks) -> pd.DataFrame:
    """Return what there is to say about each flow by itself."""
    seconds = flows["duration"].where(flows["duration"] > 0)
    total = {what: flows[[f"{what}_out", f"{what}_in"]].sum(axis=1, min_count=1) for what in ("bytes", "packets")}
    numbers = {
        "duration_ms": 1e3 * flows["duration"],
        **{name: flows[name] for name in ("bytes_out", "bytes_in", "packets_out", "packets_in")},
        **{f"{what}_per_second": total[what] / seconds for what in total},
        **{
            f"bytes_per_packet_{way}": flows[f"bytes_{way}"]
            / flows[f"packets_{way}"].where(flows[f"packets_{way}"] > 0)
            for way in ("out", "in")
        },
    }
    features = {f"log_{name}": np.log1p(values) for name, values in numbers.items()}
    features |= {name: flows[name] for name in ("protocol", "state", "service")}
    features |= {f"{end}_service": _services(flows[f"{end}_port"]) for end in ("destination", "source")}
    features["direction"] = _directions(flows, inside)
    return pd.DataFrame(features, index=flows.index)


def _services(ports: pd.Series) -> pd.Series:
    codes, unique = pd.factorize(ports.to_numpy(dtype=float, na_value=np.nan))
    classes = np.select([unique < 1024, unique < FIRST_EPHEMERAL], ["system", "registered"], "ephemeral")
    names = [SERVICES.get(int(port), name) for port, name in zip(unique, classes, strict=True)]
    return pd.Series(np.array([*names, None], dtype=object)[codes], ports.index, dtype="string")


def _directions(flows: pd.DataFrame, inside: Networks) -> pd.Series:
    source, destination = (
        _each_side(flows[name].to_numpy(dtype=object, na_value=None), inside) for name in ("source", "destination")
    )
    rules = {
        "multicast": destination == "multicast",
        "unknown": (source == "unknown") | (destination == "unknown"),
        "internal": (source == "inside") & (destination == "inside"),
        "outbound": source == "inside",
        "inbound": destination == "inside",
    }
    return pd.Series(np.select(list(rules.values()), list(rules), "external"), flows.index, dtype="string")


def _each_side(addresses: NDArray[np.object_], inside: Networks) -> NDArray[np.object_]:
    codes, unique = pd.factorize(addresses)
    return np.array([*(_side(address, inside) for address in unique), "unknown"], dtype=object)[codes]


@lru_cache(maxsize=1 << 16)
def _side(address: str, inside: Networks) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if any(parsed in network for network in inside):
        return "inside"
    return "multicast" if parsed.is_multicast or str(parsed) == "255.255.255.255" else "outside"
