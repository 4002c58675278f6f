"""The paper venue as a process of its own: a durable book behind requests over NATS."""

from botplatform.exchanges.venue_service.book import Book
from botplatform.exchanges.venue_service.booked import BookedVenue
from botplatform.exchanges.venue_service.link import Dial, NatsLink
from botplatform.exchanges.venue_service.service import VenueService

__all__ = ["Book", "BookedVenue", "Dial", "NatsLink", "VenueService"]
